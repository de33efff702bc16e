"""Run one target under atheris: `python -m fuzz.worker TARGET [OPTIONS of libFuzzer] [DIRECTORY…]`."""

import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["twincast"]):
    from fuzz.targets import CONTROL, TARGETS

from fuzz.mutations import mutate


def main() -> None:
    """Fuzz until the executions or the time are over, or something is found."""
    name, *options = sys.argv[1:]
    target = {**TARGETS, CONTROL.name: CONTROL}[name]
    corpus = target.examples()

    def change(data: bytes, max_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.4:
            return mutate(data, corpus, random, max_bytes)
        return bytes(atheris.Mutate(data, max_bytes))

    atheris.Setup(
        [sys.argv[0], f"-max_len={target.max_bytes}", *options],
        target.run,
        custom_mutator=change,
        internal_libfuzzer=True,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
