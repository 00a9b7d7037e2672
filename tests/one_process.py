"""Runs that are killed at their own writes, and two at one folder: a program for test_promises.

It forks, which only a process with a single thread may do; pytest's workers have several. Prints
one JSON object: how many writes a run makes, and what became of each try.
"""

import json
import os
import sys
from pathlib import Path

from transformers import TrainerCallback

from ftcourse.config import FinetuneConfig
from ftcourse.errors import CourseError
from ftcourse.train import finetune

WRITES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


def run_in_a_child(config, records, folder, stop_at=0):
    """Run in a forked process that ends, as by a kill, just before a write to the folder.

    Returns its exit code, and how many writes it began.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        count = [0]

        def audit(event, args):
            if event not in WRITES or not str(args[0]).startswith(str(folder)):
                return
            if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
                return
            count[0] += 1
            if count[0] == stop_at:
                os._exit(9)

        sys.addaudithook(audit)
        try:
            finetune(config, records, folder)
            os.write(write, str(count[0]).encode())
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    return os.waitstatus_to_exitcode(status), int(found or 0)


def kill(config, records, scratch, stride):
    """Kill a run at each so-many-th of its writes, and run it again to its end."""
    code, writes = run_in_a_child(config, records, scratch / "counted")
    tries = {}
    for number in range(1, writes + 1, stride):
        folder = scratch / f"run-{number}"
        tries[number] = [
            run_in_a_child(config, records, folder, number)[0],
            run_in_a_child(config, records, folder)[0],
        ]
    return {"code": code, "writes": writes, "tries": tries}


def two(config, records, scratch):
    """Run in a child; while it waits at a step, try the same run here, and another one."""
    ready, begin = os.pipe()
    end, go = os.pipe()

    class Wait(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 11:  # a checkpoint lies there
                os.write(begin, b"x")
                os.read(end, 1)

    child = os.fork()
    if child == 0:
        code = 1
        try:
            finetune(config, records, scratch / "run", callbacks=[Wait()])
            code = 0
        finally:
            os._exit(code)
    os.close(begin)
    os.read(ready, 1)
    said = []
    for other in (config, FinetuneConfig(**vars(config) | {"rank": config.rank + 1})):
        try:
            finetune(other, records, scratch / "run")
            said.append("accepted")
        except CourseError as error:
            said.append(error.got)
    os.write(go, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, "child": child, "said": said}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    config, records = FinetuneConfig(**asked["config"]), asked["records"]
    scratch = Path(asked["scratch"])
    if asked["what"] == "kill":
        print(json.dumps(kill(config, records, scratch, asked["stride"])))
    else:
        print(json.dumps(two(config, records, scratch)))
