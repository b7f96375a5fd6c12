"""Runs what is fuzzed: `python tests/engine/fuzzing.py --seconds 3600` (`make fuzz`).

libFuzzer looks for inputs that reach new code: linked into the programs of engine/core/fuzz, which
any stable Rust builds, and through atheris around the functions of fuzz_targets and, for the
proxy's HTTP, of tests/bridge/fuzz_http. One process at a time. Says what each has covered; an input
that fails is kept beside the log, and ends with 1.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CORE = Path(__file__).parents[2] / "engine" / "core"
MANIFEST = ("--manifest-path", str(CORE / "fuzz" / "Cargo.toml"))
RUST = {"market": 5, "snapshot": 2, "frame": 1}  # with their shares of the time
PYTHON = {
    "commands": 5,
    "snapshots": 2,
    "journal": 2,
    "messages": 1,
    "headers": 1,
    "snapshot_files": 1,
    "configuration": 1,
}
HTTP = {"requests": 3, "answers": 1}
SHARES = {"rust": RUST, "python": PYTHON, "http": HTTP}
# Where the functions are that atheris runs, and what it watches.
MODULES = {
    "python": ("fuzz_targets", Path(__file__).parent, ["engine", "bridge"]),
    "http": ("fuzz_http", Path(__file__).parents[1] / "bridge", ["bridge.proxy"]),
}
TRIPLE = "x86_64-unknown-linux-gnu"
_COVERAGE_FLAGS = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Cpanic=abort",
)
_SEEDS = """
import importlib, sys
from pathlib import Path
target, corpus, module, *paths = sys.argv[1:]
sys.path[:0] = paths
for number, seed in enumerate(importlib.import_module(module).seeds(target)):
    Path(corpus, f"seed-{number}").write_bytes(seed)
"""


class Fuzzed(NamedTuple):
    name: str
    runs: int
    edges: int  # reached, as libFuzzer counts them
    kept: int  # inputs that each reached something new
    failed: bool
    log: Path

    def __str__(self) -> str:
        end = "FAILED, see " + str(self.log) if self.failed else "no failure"
        return f"{self.name:<24}{self.runs:>14,}{self.edges:>9,}{self.kept:>9,}  {end}"


@functools.cache
def unavailable(language: str) -> str:
    """Why the targets of a language can't be run here, or nothing."""
    if language != "rust":
        missing = importlib.util.find_spec("atheris") is None
        return "atheris has no wheel for this platform" if missing else ""
    for tool in ("cargo", "c++"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    fetched = subprocess.run(["cargo", "fetch", "--quiet", *MANIFEST], capture_output=True)
    return "" if fetched.returncode == 0 else "libFuzzer's crate can't be fetched (cargo fetch)"


def rust_programs() -> Path:
    """Builds them, if need be; where they are."""
    target = CORE / "target" / "fuzz"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--target", TRIPLE, *MANIFEST],
        check=True,
        env=os.environ | {"RUSTFLAGS": " ".join(_COVERAGE_FLAGS), "CARGO_TARGET_DIR": str(target)},
    )
    return target / TRIPLE / "release"


def fuzz(language: str, target: str, seconds: int, directory: Path) -> Fuzzed:
    """Runs one target for so long; its inputs, log and failures go to the directory."""
    place = directory / f"{language}-{target}"
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if language == "rust":
        command = [str(rust_programs() / target)]
        if target == "snapshot":
            _write_seeds("python", "snapshots", corpus)
    else:
        command = [sys.executable, __file__, "--inside", language, target]
        _write_seeds(language, target, corpus)
    options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=2048", "-max_len=8192"]
    options += [f"-artifact_prefix={place}/", "-print_final_stats=1", "-detect_leaks=0"]
    log = place / "log"
    with log.open("w") as out:
        ended = subprocess.run([*command, str(corpus), *options], stdout=out, stderr=out)
    return _summary(f"{language} {target}", log, corpus, failed=ended.returncode != 0)


def _write_seeds(language: str, target: str, corpus: Path) -> None:
    module, directory, _ = MODULES[language]
    arguments = [target, str(corpus), module, str(directory), str(CORE.parents[1])]
    subprocess.run([sys.executable, "-c", _SEEDS, *arguments], check=True)
    if target == "snapshots":  # the Rust program takes them as they are
        for seed in corpus.glob("seed-*"):
            seed.with_name(seed.name + "-bare").write_bytes(seed.read_bytes()[1:])


def _summary(name: str, log: Path, corpus: Path, *, failed: bool) -> Fuzzed:
    text = log.read_text(errors="replace")
    runs = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(
        r"^#(\d+)", text, re.M
    )
    edges = re.findall(r"cov: (\d+)", text)
    kept = sum(1 for _ in corpus.iterdir())
    return Fuzzed(name, int([0, *runs][-1]), int([0, *edges][-1]), kept, failed, log)


def _shares(seconds: int, languages: list[str], only: str) -> Iterator[tuple[str, str, int]]:
    """`only` is the one target that is wanted, or nothing."""
    here = {
        each: {name: share for name, share in SHARES[each].items() if only in ("", name)}
        for each in languages
        if not unavailable(each)
    }
    total = sum(sum(shares.values()) for shares in here.values())
    for language, shares in here.items():
        for target, share in shares.items():
            yield language, target, max(seconds * share // total, 1)


def _inside(language: str, target: str, arguments: list[str]) -> None:
    """What atheris runs, in a process of its own: it ends the process."""
    import atheris

    module, directory, watched = MODULES[language]
    sys.path[:0] = [str(directory), str(CORE.parents[1])]
    with atheris.instrument_imports(include=watched):
        targets = importlib.import_module(module).TARGETS
    atheris.Setup([__file__, *arguments], targets[target])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="together")
    parser.add_argument("--directory", type=Path, default=CORE / "target" / "fuzz-runs")
    parser.add_argument("--only", choices=tuple(SHARES))
    parser.add_argument("--target", default="", help="this one alone")
    arguments = parser.parse_args()
    languages = [arguments.only] if arguments.only else list(SHARES)
    for language in languages:
        if why := unavailable(language):
            print(f"the {language} side is not fuzzed: {why}")
    print(f"{'':<24}{'runs':>14}{'edges':>9}{'inputs':>9}", flush=True)
    failed = False
    for language, target, seconds in _shares(arguments.seconds, languages, arguments.target):
        fuzzed = fuzz(language, target, seconds, arguments.directory)
        failed |= fuzzed.failed
        print(f"{fuzzed}  ({seconds} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2], sys.argv[3], sys.argv[4:])
    sys.exit(main())
