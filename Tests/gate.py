"""Runs everything that CI runs: the steps of `make test`, each a target of the Makefile, in two lanes side by side.

What waits most, the integration tests, is in a lane of its own; the builds beside it give way to it. Each step writes to a file
in .build-gate. The first that fails ends the others, and says how to run only it. At the end stands where the time went."""
import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / ".build-gate"
# How much of a failed step's log is printed, in lines.
TAIL = 250

# target: its make target; needs: steps that must have passed; yields: whether it gives way to the other lane.
Step = collections.namedtuple("Step", "target needs yields", defaults=((), False))
LANES = [
    [Step("build-all"), Step("integration", ("build", "packages-test")), Step("counts"), Step("fuzz", (), True)],
    [Step("packages-test"), Step("build"), Step("lint", (), True), Step("address", (), True), Step("thread", (), True)],
]
BUDGET = 25  # minutes


class Run:
    """A step that runs or has run."""

    def __init__(self, step):
        self.step, self.began = step, time.monotonic()
        self.path = LOGS / f"{step.target}.log"
        self.status = self.seconds = self.cpu = None
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                ["nice", "-n", "10" if step.yields else "0", "make", "--no-print-directory", "BUILT=1", step.target], cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait(self):
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = self.status = os.waitstatus_to_exitcode(status)
        self.seconds, self.cpu = time.monotonic() - self.began, usage.ru_utime + usage.ru_stime
        return self.status

    def log(self):
        return self.path.read_text(errors="replace")

    def end(self):
        if self.status is None:
            os.killpg(self.process.pid, signal.SIGTERM)


class Gate:
    def __init__(self):
        self.changed = threading.Condition()
        self.runs = {}
        self.failed = None

    def lane(self, steps):
        for step in steps:
            with self.changed:
                self.changed.wait_for(lambda: self.failed or all(
                    need in self.runs and self.runs[need].status == 0 for need in step.needs))
                if self.failed:
                    return
                run = self.runs[step.target] = Run(step)
            run.wait()
            with self.changed:
                if run.status != 0 and not self.failed:
                    self.failed = run
                    for other in self.runs.values():
                        other.end()
                self.changed.notify_all()
                if self.failed:
                    return
                print(f"{step.target}: passed in {run.seconds / 60:.1f} min", flush=True)

    def run(self):
        began = time.monotonic()
        lanes = [threading.Thread(target=self.lane, args=(steps,)) for steps in LANES]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        if self.failed:
            return self.report_failure()
        self.report(time.monotonic() - began)
        return 0

    def report_failure(self):
        target, lines = self.failed.step.target, self.failed.log().splitlines()
        # What stands out, and then the end.
        for line in [line for line in lines[:-TAIL] if re.search(r"error:|✘|^FAILED |^E  |WARNING: ThreadSan", line)][:60]:
            print(line)
        print("\n".join(lines[-TAIL:]))
        print(f"\nmake test: {target} failed with {self.failed.status} after {self.failed.seconds / 60:.1f} min. "
              f"Only it: make {target}. All it said: .build-gate/{target}.log")
        return 1

    def report(self, seconds):
        print("\n| step | minutes | CPU minutes | what it says |\n|---|---|---|---|")
        for step in (step for lane in LANES for step in lane):
            run = self.runs[step.target]
            print(f"| {step.target} | {run.seconds / 60:.1f} | {run.cpu / 60:.1f} | {said(step.target, run.log())} |")
        cpu = sum(run.cpu for run in self.runs.values())
        print(f"| all, in two lanes | {seconds / 60:.1f} | {cpu / 60:.1f} | of {BUDGET} minutes |")
        print("\n| the slowest integration tests | seconds |\n|---|---|")
        for spent, name in slowest(self.runs["integration"].log()):
            print(f"| {name} | {spent} |")
        print("\nmake test: all passed")


def said(target, log):
    """What a step counted, from its log."""
    if target in ("address", "thread"):
        tests = re.findall(r"Test run with (\d+) tests", log)
        kind = "unit tests under AddressSanitizer" if target == "address" else "of them under ThreadSanitizer"
        words = f"{sum(map(int, tests))} {kind}"
        if target == "address":
            transcripts = sum(path.is_file() for path in (ROOT / "Tests/ProtocolsTests/Transcripts").rglob("*"))
            words += f", {transcripts} transcripts among them"
        return words
    if target == "integration":
        return re.findall(r"(\d+ passed)", log)[-1]
    if target == "fuzz":
        counts = [int(number) for number in re.findall(r": (\d+) executions", log)]
        return f"{sum(counts):,} executions of {len(counts)} targets"
    if target == "counts":
        return re.findall(r"counts: (\d+ figures)", log)[-1]
    return ""


def slowest(log):
    """(seconds, test) of the ten slowest, as pytest has them."""
    return re.findall(r"^([\d.]+)s call +(\S+)$", log, re.MULTILINE)[:10]


def main():
    LOGS.mkdir(exist_ok=True)
    gate = Gate()

    def stop(number, _):
        for run in list(gate.runs.values()):
            run.end()
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    sys.exit(gate.run())


if __name__ == "__main__":
    main()
