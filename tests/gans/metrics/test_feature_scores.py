"""Scores over features: what is compared with what, floors, notes; configs that build."""

import contextlib
import functools
import io

import numpy as np
import pytest
from omegaconf import OmegaConf
from prdc import compute_prdc

from sparring.cli import setup
from sparring.config import targets
from sparring.config.composer import CONF, Composer
from sparring.data import arrays
from sparring.data.dataset import Arrays
from sparring.errors import UserError
from sparring.gans.data import mixtures
from sparring.gans.metrics.base import Metrics
from sparring.gans.metrics.classifier import Classifier
from sparring.gans.metrics.extractors import Pixels, RandomNetworks
from sparring.gans.metrics.feature_scores import FeatureScores, Frechet, Kernel, Neighbours

DIGITS = arrays.digits(0)


def noisy(amount, split="test"):
    def sample(count):
        examples, labels = DIGITS.examples(split, count)
        noise = np.random.default_rng(1).normal(size=examples.shape)
        return np.clip(examples + amount * noise, -1, 1).astype(np.float32), labels

    return sample


def test_scores_are_those_of_plain_numpy_and_prdc_on_the_same_features():
    metric = FeatureScores(
        DIGITS,
        functools.partial(RandomNetworks, count=2),
        [Frechet(), Kernel(), Neighbours(3)],
        300,
    )
    found = metric(noisy(0.3))
    expected = []
    for member in metric.extractor.members:
        real, fake = (
            member(x).astype(np.float64) for x in (DIGITS.examples("train")[0], noisy(0.3)(300)[0])
        )
        a = np.cov(real, rowvar=False)
        b = np.cov(fake, rowvar=False)
        gap = real.mean(axis=0) - fake.mean(axis=0)
        with contextlib.redirect_stdout(io.StringIO()):
            near = compute_prdc(real, fake, nearest_k=3)
        kernels = [(x @ y.T / 64 + 1) ** 3 for x, y in ((real, real), (fake, fake), (real, fake))]
        within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
        expected.append(
            [
                gap @ gap
                + np.trace(a + b)
                - 2 * np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum(),
                sum(within) - 2 * kernels[2].mean(),
                *(near[n] for n in ("precision", "recall", "density", "coverage")),
            ]
        )
    tags = [
        "gan/fid_random",
        "gan/kid_random",
        "gan/precision",
        "gan/recall",
        "gan/density",
        "gan/coverage",
    ]
    np.testing.assert_allclose(
        [found[t] for t in tags], np.mean(expected, axis=0), rtol=1e-5, atol=1e-7
    )
    assert found.keys() == metric.descriptions.keys()


def test_the_floor_is_the_test_split_in_the_samples_place():
    metric = FeatureScores(DIGITS, RandomNetworks, [Frechet(), Neighbours()], samples=200)
    found = metric(noisy(0.0))  # is the test split itself
    for tag in ("gan/fid_random", "gan/precision", "gan/recall", "gan/density", "gan/coverage"):
        assert found[f"{tag}_floor"] == pytest.approx(found[tag])
    other = metric(noisy(0.5))
    assert other["gan/fid_random_floor"] == found["gan/fid_random_floor"]
    assert other["gan/fid_random"] > 2 * found["gan/fid_random"]
    assert other["gan/precision"] < found["gan/precision"]


def test_notes_say_how_it_was_computed():
    notes = FeatureScores(DIGITS, RandomNetworks, [Frechet()], samples=1000, reference=500).notes
    assert (notes["samples"], notes["reference"], notes["split"], notes["dimension"]) == (
        1000,
        500,
        "train",
        64,
    )
    assert notes["floor's samples"] == 359  # all there are
    assert len(notes["extractor"]) == 16
    assert notes["floor"].keys() == {"gan/fid_random_floor"}


@pytest.mark.parametrize(
    "extractor", [RandomNetworks, functools.partial(Classifier, steps=200), Pixels]
)
def test_more_noise_is_a_greater_distance(extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    metric = FeatureScores(DIGITS, extractor, [Frechet(), Kernel()], samples=359)
    found = np.array([list(metric(noisy(amount)).values())[:2] for amount in (0.0, 0.2, 0.4, 0.8)])
    assert (np.diff(found, axis=0) > 0).all()
    half = np.array(
        list(
            metric(lambda n: tuple(a[DIGITS.examples("test")[1] < 5] for a in noisy(0)(n))).values()
        )[:2]
    )
    assert (half > found[0]).all()  # half of the classes are missing


def test_too_few_examples_for_a_neighbour_are_one_line():
    metric = FeatureScores(DIGITS, RandomNetworks, [Neighbours(5)], samples=100)
    with pytest.raises(
        UserError, match=r"precision, .*coverage of 5 examples \(samples\): 6 are needed at least"
    ):
        metric(lambda n: DIGITS.examples("test", 5))
    assert np.isfinite(list(metric(lambda n: DIGITS.examples("test", 6)).values())).all()
    with pytest.raises(UserError, match=r"scores\.k=0"):
        Neighbours(0)
    with pytest.raises(UserError, match="samples=1, reference=50000: 2 at least"):
        FeatureScores(DIGITS, RandomNetworks, [Frechet()], samples=1)


@pytest.mark.parametrize(
    ("score", "few", "said"), [(Neighbours(5), 5, "precision"), (Kernel(), 1, "kernel of 1 ")]
)
def test_a_test_split_too_small_for_a_floor_is_refused_before_anything_is_scored(score, few, said):
    images, _ = DIGITS.examples("train", 40)
    for count in (few, few + 1):
        data = Arrays({"train": images, "test": images[:count]}, None, 0)
        if count == few:
            with pytest.raises(
                UserError, match=rf"{said}.*the real test split\): {few + 1} are needed"
            ):
                FeatureScores(data, RandomNetworks, [Frechet(), score])
        else:
            scored = FeatureScores(data, RandomNetworks, [Frechet(), score])(noisy(0.1))
            assert np.isfinite(list(scored.values())).all()


def test_scores_over_two_extractors_stand_beside_each_other():
    def make(kind, suffix):
        return lambda data: FeatureScores(
            data, kind, [Frechet(), Neighbours(5, suffix)], samples=50, reference=50
        )

    metrics = Metrics(DIGITS, {"a": make(RandomNetworks, "_random"), "b": make(Pixels, "")})
    found = metrics(noisy(0.0))
    assert {
        "gan/fid_random",
        "gan/fid_pixels",
        "gan/precision",
        "gan/precision_random",
    } <= found.keys()


# ---- conf/metric ---------------------------------------------------------------------------------

DATA = {
    "modes": "grid",
    "stacked_modes": "stacked_digits",
    "maps": "frozen_lake_maps",
    "nll_oracle": "oracle",
}
KEYS = {"fid_trained": "fid_classifier"}  # where it is not the option's own name


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "metric").glob("*.yaml")))
def test_every_config_builds_and_its_metric_scores(name, tmp_path):
    short = {"modes": [], "fid": ["extractor.path=none", "extractor.sha256=00"]}
    short["fid_trained"] = [f"extractor.run={tmp_path / 'none'}"]
    key = KEYS.get(name, name)
    cache = [f"extractor.cache={tmp_path}", "extractor.steps=20"]
    setup.prepare()
    cfg = Composer("gan").compose([f"data={DATA.get(name, 'digits')}", f"metric={name}"])
    assert list(cfg.metrics) == [key]
    if "cache" in cfg.metrics[key].get("extractor", {}):
        short.setdefault(name, cache)
    for override in short.get(name, []):
        part, _, value = override.partition("=")
        OmegaConf.update(
            cfg, f"metrics.{key}.{part}", value if part != "extractor.steps" else int(value)
        )
    plain = {k: OmegaConf.to_container(cfg[k], resolve=True) for k in ("data", "metrics")}
    targets.check(plain, [])
    targets.check_arguments(plain)
    makers = targets.instantiate(cfg.metrics)
    data = targets.instantiate(cfg.data)
    if name in ("fid", "fid_trained"):  # of files that are not there
        with pytest.raises(
            UserError, match=r"extractor=inception|extractor\.path=none|extractor\.run"
        ):
            makers[key](data)
        return
    metric = makers[key](data)
    found = metric(lambda n: data.examples("test", min(n, 200)))
    assert found.keys() == metric.descriptions.keys()
    assert all(isinstance(v, float) and np.isfinite(v) for v in found.values())
    assert metric.notes["samples"] == metric.samples
    # Plain values
    OmegaConf.create(metric.notes if not hasattr(metric.notes, "items") else dict(metric.notes))


@pytest.mark.parametrize("conditional", [False, True])
def test_labels_are_judged_of_a_generator_that_sees_them(conditional):
    overrides = ["data=digits", "metric=is_classifier", f"game.conditional={conditional}"]
    assert Composer("gan").compose(overrides).metrics.is_classifier.label_accuracy is conditional


def test_a_metric_of_other_data_is_refused():
    with pytest.raises(UserError, match="no classes to learn"):
        FeatureScores(mixtures.Mixture(np.zeros((1, 2)), 1.0), Classifier, [Frechet()])
