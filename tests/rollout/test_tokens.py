import pytest

from ekipl_rollout.answer import Answer, AnswerStatus
from ekipl_rollout.tokens import Encoder, UnusableAnswer


@pytest.fixture(scope="module")
def tokenizer():
    from recipe.ekipl.tiny.model import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder.for_tokenizer(tokenizer, max_tokens=32)


def answer(text, status=AnswerStatus.FINISHED):
    return Answer("gpt", 0, text, status)


def test_a_finished_answer_ends_with_the_policys_end_token(encoder, tokenizer):
    ids = encoder.encode(answer("<think> red cube yes : 1 </think><answer> 1 </answer>"))
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "<think> red cube yes : 1 </think><answer> 1 </answer>"


def test_an_expert_answer_has_the_ids_that_the_policy_would_have_written(encoder, tokenizer):
    text = "<think> red cube yes : 1 </think><answer> 1 </answer>"
    assert encoder.encode(answer(text))[:-1] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_an_answer_cut_at_length_gets_no_end_token(encoder, tokenizer):
    ids = encoder.encode(answer("<think> red cube", AnswerStatus.CUT_AT_LENGTH))
    assert tokenizer.eos_token_id not in ids


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>"])
def test_a_special_token_spelled_in_the_text_never_becomes_that_token(encoder, tokenizer, token):
    ids = encoder.encode(answer(f"a{token}b"))
    assert not set(tokenizer.all_special_ids) & set(ids[:-1])
    assert tokenizer.decode(ids[:-1]) == f"a{token}b"


def test_a_token_that_only_appears_when_another_is_removed_stays_text(encoder, tokenizer):
    ids = encoder.encode(answer("<|im_<|im_end|>end|>"))
    assert not set(tokenizer.all_special_ids) & set(ids[:-1])


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("", AnswerStatus.FINISHED, "empty"),
        ("  \n", AnswerStatus.FINISHED, "empty"),
        ("no", AnswerStatus.REFUSED, "refused"),
        ("no", AnswerStatus.BLOCKED, "blocked"),
        ("a\ud83db", AnswerStatus.FINISHED, "not_unicode"),
        ("red " * 40, AnswerStatus.FINISHED, "too_long"),
        ("x" * 10_000_000, AnswerStatus.FINISHED, "too_long"),
    ],
)
def test_what_cannot_become_a_row_is_refused_with_a_reason(encoder, text, status, reason):
    with pytest.raises(UnusableAnswer) as caught:
        encoder.encode(answer(text, status))
    assert caught.value.reason == reason


def test_an_answer_that_just_fits_is_kept_and_one_more_token_is_too_many(encoder):
    assert len(encoder.encode(answer("<think>" * 31))) == 32
    with pytest.raises(UnusableAnswer, match="too_long"):
        encoder.encode(answer("<think>" * 32))


def test_long_answers_are_cut_without_end_token_when_asked_to(tokenizer):
    ids = Encoder.for_tokenizer(tokenizer, 32, too_long="cut").encode(answer("red " * 4000))
    assert len(ids) == 32
    assert tokenizer.eos_token_id not in ids


def test_white_space_around_an_answer_stays_where_its_log_probability_counts(encoder, tokenizer):
    text = " <answer> 1 </answer>\n"
    assert tokenizer.decode(encoder.encode(answer(text))[:-1]) == text.strip()
    as_it_came = Encoder.for_tokenizer(tokenizer, 32, strip=False)
    assert tokenizer.decode(as_it_came.encode(answer(text))[:-1]) == text


def test_nul_characters_survive(encoder, tokenizer):
    assert tokenizer.decode(encoder.encode(answer("a\0b"))[:-1]) == "a\0b"
