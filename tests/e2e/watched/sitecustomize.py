"""Python imports this first in every process that has its folder in PYTHONPATH. It writes down which modules of ours each
process looks for, into the file named by EKIPL_TEST_WATCH: lines of [process, "command" | "module", text]."""

import json
import os
import sys

OURS = {"recipe", "ekipl_reward", "ekipl_rollout"}
PATH = os.environ.get("EKIPL_TEST_WATCH")


class Watch:
    """Asked first for every module that is not there yet, and never has it."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            write("module", name)


def write(kind, text):
    with open(PATH, "a") as file:
        file.write(json.dumps([os.getpid(), kind, text]) + "\n")


if PATH:
    sys.meta_path.insert(0, Watch())
    write("command", " ".join(sys.orig_argv))
