"""Experts beside verl's own `tool_agent`: its ToolAgentLoop, a tool from a tool config, several turns; the policy is scripted."""

import io
import json
import shutil

import pytest
import yaml
from PIL import Image
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import ToolResponse

from tests.contracts.scripted_worker import RIGHT, WRONG, ScriptedExpert, comparable, prompt, texts_of

pytestmark = pytest.mark.contract

# Tools in the manner of Qwen2.5's and Qwen3-VL's templates; Qwen2-VL's own has none.
TEMPLATE = """\
{% if tools %}<|im_start|>system
Tools:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}\
{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part.text }}{% endif %}\
{% endfor %}{% endif %}\
{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class Zoom(BaseTool):
    """Shows one half of the row's picture, enlarged."""

    async def execute(self, instance_id, parameters, agent_data, **_):
        picture, half = agent_data.image_data[0], parameters["half"]
        left = 0 if half == "left" else picture.width // 2
        crop = picture.crop((left, 0, left + picture.width // 2, picture.height)).resize(picture.size)
        return ToolResponse(text=f"This is the {half} half.", image=[crop]), self.config["reward"], {}


TOOLS = {
    "tools": [
        {
            "class_name": f"{__name__}.Zoom",
            "config": {"type": "native", "reward": 0.5},
            "tool_schema": {
                "type": "function",
                "function": {
                    "name": "zoom",
                    "description": "Look closer.",
                    "parameters": {
                        "type": "object",
                        "properties": {"half": {"type": "string", "description": "left or right"}},
                        "required": ["half"],
                    },
                },
            },
        }
    ]
}


def zoom(half):
    return f"<tool_call>{json.dumps({'name': 'zoom', 'arguments': {'half': half}})}</tool_call>"


SESSIONS = [
    [zoom("left"), RIGHT],
    [zoom("right"), WRONG],
    [zoom("left") + zoom("right"), zoom("left"), RIGHT],
    [RIGHT + " at once"],
]


@pytest.fixture(scope="module")
def settings(model, tmp_path_factory):
    """Settings of verl's for a policy with tools: a model whose template shows them, and the tool config."""
    folder = tmp_path_factory.mktemp("tools")
    shutil.copytree(model, folder / "model")
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tools.yaml").write_text(yaml.safe_dump(TOOLS))
    turns = "actor_rollout_ref.rollout.multi_turn"
    return {
        "actor_rollout_ref.model.path": str(folder / "model"),
        f"{turns}.enable": True,
        f"{turns}.format": "hermes",
        f"{turns}.max_parallel_calls": 2,
        f"{turns}.tool_config_path": str(folder / "tools.yaml"),
        "data.max_prompt_length": 1024,
        "data.max_response_length": 512,
    }


def row():
    """A picture whose halves differ, and a row of the tool agent."""
    picture, buffer = Image.new("RGB", (84, 84), "red"), io.BytesIO()
    picture.paste("blue", (42, 0, 84, 84))
    picture.save(buffer, "PNG")
    made = prompt()
    made["raw_prompt"][0]["content"][0] = {"type": "image", "bytes": buffer.getvalue(), "image": picture}
    return {**made, "agent_name": "tool_agent"}


def rows_by_response(queue):
    return {tuple(row["responses"].tolist()): row for row in queue.rows.values()}


def test_sessions_with_tools_are_written_as_verls_own_worker_writes_them(run, classes, settings):
    """Pictures that tools brought included: two sessions that met equally many met different ones."""
    theirs, ours = classes
    stock = run(theirs, SESSIONS, settings=settings, made=row())
    expert = ScriptedExpert("gpt", RIGHT + " 1", RIGHT + " 2")
    mine = run(ours, SESSIONS, [expert], {**settings, "actor_rollout_ref.rollout.n": 6}, made=row())
    assert stock.prompts["u1"]["status"] == mine.prompts["u1"]["status"] == "finished"
    expected, got = rows_by_response(stock), rows_by_response(mine)
    assert sorted(row["num_turns"] for row in expected.values()) == [2, 4, 4, 6]
    assert sorted(len(row["multi_modal_inputs"]["image_grid_thw"]) for row in expected.values()) == [1, 2, 2, 4]
    assert len(got) == 6 and set(expected) < set(got)
    for response, row_ in expected.items():
        assert set(row_.keys()) == set(got[response].keys())
        for field in sorted(row_.keys()):
            if field not in ("raw_prompt", "session_id"):  # pictures compare by identity; sessions race for the script
                assert comparable(row_[field]) == comparable(got[response][field]), field


def test_an_experts_row_is_the_prompt_with_its_tools_and_one_answer(run, classes, settings):
    expert = ScriptedExpert("gpt", RIGHT + " 1")
    queue = run(classes[1], SESSIONS, [expert], {**settings, "actor_rollout_ref.rollout.n": 5}, made=row())
    say = queue.worker.tokenizer.decode
    rows = {say(row["responses"], skip_special_tokens=True): row for row in queue.rows.values()}
    experts = rows.pop(RIGHT + " 1")
    policy = next(row for text, row in rows.items() if text.startswith(zoom("left") + "\n"))
    assert [type(part) for part in expert.question.messages[0].parts] == [bytes, str]
    assert len(expert.question.messages) == 1, "experts are not shown the tools"
    assert '"name": "zoom"' in say(experts["prompts"])
    assert experts["prompts"].tolist() == policy["prompts"].tolist()
    assert (experts["num_turns"], policy["num_turns"]) == (2, 4)
    assert (experts["extra_fields"]["tool_rewards"], policy["extra_fields"]["tool_rewards"]) == ([], [0.5])
    assert len(experts["multi_modal_inputs"]["image_grid_thw"]) == 1
    assert experts["response_mask"].all() and not policy["response_mask"].all()
    told = say(policy["responses"][policy["response_mask"] == 0])
    assert "This is the left half." in told and "<tool_call>" not in told
    assert "accuracy" in experts["extra_fields"]["reward_extra_info"]


def test_the_best_are_kept_whoever_needed_tools(run, classes, settings):
    texts = [[zoom("left"), WRONG], [zoom("right"), RIGHT], [zoom("left"), WRONG], [zoom("left"), WRONG]]
    expert = ScriptedExpert("gpt", RIGHT, WRONG + " 2")
    queue = run(classes[1], texts, [expert], {**settings, "actor_rollout_ref.rollout.n": 2}, made=row())
    first, last = sorted(texts_of(queue), key=len)
    assert first == RIGHT
    assert last.startswith(zoom("right")) and last.endswith(RIGHT)
    assert queue.prompts["u1"]["ekipl"]["sources"]["policy"]["judged"] == 4
