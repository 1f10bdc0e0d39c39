"""A reward function of somebody else's: it imports nothing of ours."""


def their_reward(data_source, solution_str, ground_truth, extra_info=None, **_):
    """The truth is among the words; and a little for each word that was not said before, so that random answers differ."""
    words = solution_str.split()
    return float(str(ground_truth) in words) + len(set(words)) / 256
