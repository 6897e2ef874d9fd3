"""Mutations of configs: each is read, or refused in a line that names the file and a key, and none takes long.

The configs in data/configs are shapes of published models as their repositories on the Hugging Face hub have them, and
of the defaults of config classes of transformers.
"""

import copy
import json
import math
import random
import secrets
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import genz_jax as gz
from genz_jax.catalog.hugging_face.config_classes import config_classes

SEEDS = {file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "data/configs").glob("*"))}
MUTANTS = 1000
LONGEST, SLOWEST, LEAST_READ = 300, 2.0, 0.3
STRANGE = [None, True, False, "x", "32", "", 0, 1, -1, 3, 2.5, math.nan, math.inf, 10**12, 10**400, [], {}, [1], ["x"]]
KEYS = sorted({key for known in config_classes().values() for key in known.keys})


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON object and the objects in it."""
    return [values, *(inner for value in values.values() if isinstance(value, dict) for inner in objects(value))]


def mutate_list(rng: random.Random, value: list[Any]) -> list[Any]:
    changed = list(value)
    at = rng.randrange(len(value))
    match rng.randrange(6):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, changed[at])
        case 2:
            rng.shuffle(changed)
        case 3:
            changed[at] = rng.choice(STRANGE)
        case 4:
            changed[at] = changed[at][:-1] if isinstance(changed[at], str) else changed[at] + 1
        case _:
            changed[at] = rng.choice(changed)
    return changed


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Another value, most often of the same type."""
    if rng.random() < 0.25:
        return rng.choice(STRANGE)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(
            (value + 1, value - 1, 2 * value, value // 2, 4 * value, rng.randint(1, 64), float(min(value, 2**64)))
        )
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return mutate_list(rng, value)
    if isinstance(value, str):
        return rng.choice((value[:-1], value.upper(), value + "x"))
    return rng.choice(STRANGE)


def mutate(rng: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """A config with one to three changes: a value, a key less, a key by another name, a key more."""
    changed = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 2, 3))):
        inside = rng.choice([inner for inner in objects(changed) if inner])
        key = rng.choice(sorted(inside))
        match rng.randrange(10):
            case 0 | 1 | 2:
                del inside[key]
            case 3:
                inside[key[:-1] if rng.random() < 0.5 else rng.choice(KEYS)] = inside.pop(key)
            case 4:
                inside[rng.choice(KEYS)] = rng.choice(STRANGE + [value for value in inside.values()])
            case _:
                inside[key] = mutate_value(rng, inside[key])
        if not changed:
            return copy.deepcopy(values)
    return changed


def names(values: Any) -> set[str]:
    """Every key of a JSON value."""
    if isinstance(values, dict):
        return set(values).union(*map(names, values.values()))
    return set().union(*map(names, values)) if isinstance(values, list) else set()


def read(file: Path) -> gz.Model | str:
    """The model, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes of models that nobody knows
        try:
            return gz.Model.from_hugging_face(file)
        except ValueError as error:
            return str(error)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("seed", "mutants"),
    [(13, MUTANTS // 25), (11, MUTANTS // 2), (secrets.randbits(32), MUTANTS // 2)],
    ids=["few", "fixed", "random"],
)
def test_mutations_are_read_or_refused_in_a_line(seed, mutants, tmp_path):
    print(f"seed {seed}")
    rng, file, good = random.Random(seed), tmp_path / "config.json", 0
    known = {*KEYS, "model_type", "text_config", "architectures", "llm_config", "language_config"}
    for number in range(mutants):
        values = mutate(rng, SEEDS[rng.choice(sorted(SEEDS))])
        text = json.dumps(values)
        file.write_text(text)
        start = time.perf_counter()
        model = read(file)
        told = f"seed {seed}, mutant {number}: {model if isinstance(model, str) else ''}: {text}"
        assert time.perf_counter() - start < SLOWEST, told
        if isinstance(model, str):
            assert len(model) <= LONGEST, told
            assert "\n" not in model, told
            assert str(file) in model or model.startswith("…"), told
            said = model.replace(str(file), "")
            assert any(name and name in said for name in known | names(values)) or "architecture" in said, told
        else:
            assert 0 < float(gz.parameter_count(model).total) < math.inf, told
            good += 1
    assert good >= LEAST_READ * mutants


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [12, secrets.randbits(32)], ids=["fixed", "random"])
def test_mutations_are_read_as_by_transformers(seed, tmp_path):
    """What both read is the same: parameters, kinds of layers, windows, heads, experts."""
    reference = pytest.importorskip("config_reference")
    kinds = reference.classes()
    seeds = [values for values in SEEDS.values() if values["model_type"] in kinds]
    print(f"seed {seed}")
    rng, file, compared = random.Random(seed), tmp_path / "config.json", 0
    for number in range(MUTANTS // 2):
        values = mutate(rng, rng.choice(seeds))
        file.write_text(json.dumps(values))
        if isinstance(read(file), str) or values.get("model_type") not in kinds:
            continue
        told = {key: value for key, value in json.loads(file.read_text()).items() if key != "model_type"}
        try:
            other = reference.theirs(kinds[values["model_type"]], {"pad_token_id": 0, **told})
        except Exception:  # whatever transformers says of what it does not take
            continue
        mine = reference.ours(file)
        found = {name: (other[name], mine[name]) for name in other if mine[name] is not None}
        assert {name: pair for name, pair in found.items() if pair[0] != pair[1]} == {}, f"{seed}, {number}: {values}"
        compared += 1
    assert compared >= LEAST_READ * MUTANTS / 2
