"""Configs as transformers' own classes read them: defaults, patterns of layers, windows, sizes and parameters."""

import json
import random
import sys
from pathlib import Path

import pytest

import genz_jax as gz

reference = pytest.importorskip("config_reference")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

KINDS = sorted(reference.classes())
DRAWS = 12
"""Configs at random of each architecture."""

NOT_BUILT = {  # what transformers cannot make of a config that says nothing
    "dbrx": "no attribute 'rope_theta'",
    "ministral": "unsupported operand",
    "nemotron": "unsupported operand",
}
WITHOUT_DEFAULT = {  # what we refuse where nothing is said
    "deepseek_v2": "no 'num_experts_per_tok'",
    "dots1": "no 'n_shared_experts'",
    "hunyuan_v1_dense": "no head_dim",
    "hunyuan_v1_moe": "no head_dim",
    "lfm2_moe": "no layer_types",
    "glm4_moe": "hidden_size 4096 is no multiple of num_attention_heads 96",
    "ministral": "no head_dim",
    "nemotron": "no num_key_value_heads",
}


def test_facts_are_those_of_transformers():
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    config_classes = __import__("config_classes")
    kept = json.loads(config_classes.FILE.read_text())
    assert json.loads(json.dumps(config_classes.facts())) == kept, "run python benchmarks/config_classes.py"


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_says_nothing(kind, tmp_path):
    if kind in WITHOUT_DEFAULT:
        with pytest.raises(ValueError, match=WITHOUT_DEFAULT[kind]):
            reference.different(kind, {}, tmp_path / "config.json")
    elif kind in NOT_BUILT:
        with pytest.raises((AttributeError, TypeError), match=NOT_BUILT[kind]):
            reference.different(kind, {}, tmp_path / "config.json")
    else:
        assert reference.different(kind, {}, tmp_path / "config.json") == {}


def is_read_as(other, kind, values, file):
    """Whether we read a config, and then as `other`; what we refuse is refused in a line that names the file."""
    file.write_text(json.dumps({**values, "model_type": kind}))
    try:
        mine = reference.ours(file)
    except ValueError as error:
        refused = str(error)
    else:
        found = {name: (other[name], mine[name]) for name in other if mine[name] is not None}
        assert {name: pair for name, pair in found.items() if pair[0] != pair[1]} == {}, values
        return True
    assert len(refused) <= 300
    assert refused.startswith((str(file), "…"))
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_configs_at_random(kind, tmp_path):
    """Each is read as by transformers, or refused in a line that names the file."""
    rng, read, accepted = random.Random(kind), 0, 0
    for _ in range(DRAWS):
        values = reference.draw(kind, rng)
        try:
            other = reference.theirs(reference.classes()[kind], values)
        except Exception:  # whatever transformers says of what it does not take
            continue
        accepted += 1
        read += is_read_as(other, kind, values, tmp_path / "config.json")
    assert accepted >= 3 or kind == "dbrx"
    assert read >= min(2, accepted)


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_writes_is_read_back(kind, tmp_path):
    """A config written by transformers, with every key of its class in it."""
    rng, read = random.Random(kind), 0
    for _ in range(DRAWS):
        name = reference.classes()[kind]
        try:
            config = reference.transformers.AutoConfig.for_model(name, **reference.draw(kind, rng))
            values = json.loads(json.dumps(config.to_dict(), default=str))
            del values["model_type"]
            other = reference.theirs(name, values)
        except Exception:  # whatever transformers says of what it does not take
            continue
        read += is_read_as(other, kind, values, tmp_path / "config.json")
    assert read >= 2 or kind == "dbrx"


WHOLES = [kind for kind, known in reference.config_classes().items() if known.text in reference.READERS]


@pytest.mark.parametrize("kind", WHOLES)
def test_text_parts_of_wholes(kind, tmp_path):
    """A text part that says two things has the other defaults of its class."""
    file, known = tmp_path / "config.json", reference.config_classes()[kind]
    text = {"num_hidden_layers": 20, "vocab_size": 1000, "pad_token_id": 0}
    if known.text == "nemotron_h":
        text = {"vocab_size": 1000}
    file.write_text(json.dumps({"model_type": kind, "text_config": text, "tie_word_embeddings": False}))
    alone = tmp_path / "text.json"
    alone.write_text(json.dumps({"model_type": known.text, **text, "tie_word_embeddings": False}))
    assert gz.parameter_count(gz.Model.from_hugging_face(file)) == gz.parameter_count(gz.Model.from_hugging_face(alone))
