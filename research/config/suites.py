"""Suites: experiments that stand for a sweep over other experiments.

An example is `sparring rl experiment=rl_classic`. Such a file has a key `suite`, which maps keys to
their values as on a command line.
"""

from collections.abc import Sequence

from sparring.config.composer import Composer


def expanded(composer: Composer, overrides: Sequence[str]) -> tuple[list[str], bool]:
    """Return the overrides with a suite expanded, and whether there was one, which makes a sweep.

    Typed overrides take precedence over the suite's on the same key.
    """
    parsed = {o.key_or_group: o for o in composer.parse(overrides)}
    chosen = parsed.get("experiment")
    if chosen is None or chosen.is_sweep_override() or not isinstance(chosen.value(), str):
        return list(overrides), False
    suite = composer.compose([f"experiment={chosen.value()}"]).get("suite")
    if suite is None:
        return list(overrides), False
    typed = [text for text in overrides if composer.parse([text])[0].key_or_group != "experiment"]
    own = {"run.name": chosen.value(), **suite}
    return [
        *(f"{k}={v}" for k, v in own.items() if k == "experiment" or k not in parsed),
        *typed,
    ], True
