"""The adapters of classifiers: inputs as documented, outputs understood or refused, accuracy as others have it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torchvision.transforms import v2

from components.core.contracts.job import Features, Fit, Metric, Preprocess, Task
from components.core.errors import StepError, UserError
from components.core.feeds import feed
from components.core.tasks.adapter import adapter_of, in_batches
from components.core.tasks.audio import FLOOR, load_recording, log_mel
from components.core.tasks.classification import fitted
from components.core.tasks.labelled import LabelAdapter, macro_f1, read_labelled, write_labelled
from components.core.tasks.text import TOKENIZER
from components.core.tasks.torch_calls import call, inputs_taken, logits_of
from fixtures.detectors import photograph
from fixtures.labelled import TOKENS, WORDS, write_texts


def labels_file(folder: Path, labels: list[int]) -> Path:
    names = [str(number) for number in sorted(set(labels))]
    samples = [{"name": f"{place}", "label": label, "text": "x"} for place, label in enumerate(labels)]
    write_labelled(folder / "annotations.json", names, samples)
    return folder / "annotations.json"


def test_accuracy_and_macro_f1_are_those_of_scikit_learn(tmp_path):
    draw = np.random.default_rng(0)
    truth, guesses = draw.integers(0, 4, 200).tolist(), draw.integers(0, 4, 200).tolist()
    split = read_labelled(labels_file(tmp_path, truth), tmp_path, str)
    found = {f"{place}": np.eye(4, dtype=np.float32)[guess] for place, guess in enumerate(guesses)}
    scores = LabelAdapter().evaluate(found, split)
    assert scores[Metric.ACCURACY] == pytest.approx(np.mean(np.array(truth) == np.array(guesses)))
    assert scores[Metric.MACRO_F1] == pytest.approx(f1_score(truth, guesses, average="macro"))


def test_a_sample_without_a_prediction_is_wrong(tmp_path):
    split = read_labelled(labels_file(tmp_path, [0, 1, 1, 0]), tmp_path, str)
    right = {f"{place}": np.eye(2, dtype=np.float32)[label] for place, label in enumerate([0, 1, 1])}
    scores = LabelAdapter().evaluate(right, split)
    assert scores[Metric.ACCURACY] == 0.75
    assert scores[Metric.MACRO_F1] == macro_f1([(0, 0), (1, 1), (1, 1), (0, -1)]) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"9": np.zeros(2, np.float32)}, "a prediction for '9'"),
        ({"0": np.zeros(3, np.float32)}, "3 outputs and the data 2 classes"),
    ],
)
def test_predictions_of_something_else_are_refused(tmp_path, found, words):
    split = read_labelled(labels_file(tmp_path, [0, 1]), tmp_path, str)
    with pytest.raises(StepError, match=words):
        LabelAdapter().evaluate(found, split)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (np.array([[1.0, np.nan]]), "NaN logits"),
        (np.array([[1.0, np.inf]]), "infinite logits"),
        (np.zeros((2, 3)), r"is \(2, 3\); expected \[1, classes\]"),
        (np.zeros((1, 3, 4)), r"expected \[1, classes\]"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(output, words):
    with pytest.raises(StepError, match=words):
        LabelAdapter().predictions(1, [output])


def test_predictions_survive_their_file(tmp_path):
    adapter = LabelAdapter()
    adapter.write_predictions(tmp_path / "p.json", {"a": np.array([0.25, -3], np.float32)})
    assert adapter.read_predictions(tmp_path / "p.json")["a"].tolist() == [0.25, -3]


def test_a_damaged_list_is_the_users_error(tmp_path):
    (tmp_path / "annotations.json").write_text(json.dumps({"labels": ["a"], "samples": [{"name": "x", "label": 3}]}))
    with pytest.raises(UserError, match="of a class that it does not list"):
        read_labelled(tmp_path / "annotations.json", tmp_path, str)


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (300, 200)])
def test_crop_is_what_torchvision_evaluates_with(size):
    image = photograph(1, *size)
    ours = fitted(image, 28, 28, Preprocess(fit=Fit.CROP))
    theirs = v2.Compose([v2.Resize(32), v2.CenterCrop(28), v2.PILToTensor()])(Image.fromarray(image))
    # The one resizes before it cuts, the other after: the same field of view, rounded to whole pixels elsewhere.
    assert np.abs(ours[0].mean((1, 2)) - theirs.numpy().mean((1, 2)) / 255).max() < 0.02
    assert np.corrcoef(ours.ravel(), theirs.numpy().ravel())[0, 1] > 0.9


def test_stretch_and_normalisation_are_torchvisions():
    image = photograph(2, 40, 64)
    how = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    inputs, _ = adapter_of(Task.CLASSIFICATION, (1, 3, 28, 30), how).encode(image)
    resized = Image.fromarray(image).resize((30, 28), Image.Resampling.BILINEAR)
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(how.mean, how.std)])
    assert np.allclose(inputs["image"][0], transform(resized).numpy(), atol=1e-6)


def test_letterbox_keeps_the_aspect_ratio():
    pixels = fitted(np.full((20, 40, 3), 255, np.uint8), 32, 32, Preprocess(fit=Fit.LETTERBOX))
    assert (pixels[0, :, :16] == 1).all()
    assert (pixels[0, :, 16:] == 0).all()


def test_texts_are_cut_and_padded_with_a_mask(tmp_path):
    (tmp_path / "model").mkdir()
    write_texts(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "model" / TOKENIZER)
    adapter = adapter_of(Task.TEXT, (2, TOKENS), Preprocess(), tmp_path)
    short, long = WORDS["harbour"].split()[:3], WORDS["kitchen"].split() * 4
    (batch,) = in_batches([adapter.encode(" ".join(words))[0] for words in (short, long)], 2)
    assert {name: values.shape for name, values in batch.items()} == dict.fromkeys(adapter.inputs, (2, TOKENS))
    assert batch["attention_mask"].sum(1).tolist() == [3, TOKENS]
    assert (batch["input_ids"][0, 3:] == 0).all()
    assert (batch["input_ids"][0, :3] > 1).all()


def test_a_file_that_is_no_tokenizer_is_the_users_error(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / TOKENIZER).write_text("{}")
    with pytest.raises(UserError, match=r"preprocess\.tokenizer: tokenizer\.json cannot be read"):
        adapter_of(Task.TEXT, (1, 8), Preprocess(), tmp_path).encode("x")


def test_a_tone_lights_the_mel_band_that_it_is_in():
    rate, mels = 8000, 20
    tops = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), mels + 2) / 2595) - 1)
    for band in (3, 9, 16):
        wave = np.sin(2 * np.pi * tops[band + 1] * np.arange(rate) / rate).astype(np.float32)
        features = log_mel(wave, rate, mels, 50)
        assert features.shape == (mels, 50)
        assert (features.argmax(0) == band).all()


def test_a_short_recording_ends_in_silence_and_a_long_one_is_cut():
    rate = 8000
    noise = np.random.default_rng(1).standard_normal(rate).astype(np.float32)
    whole = log_mel(noise, rate, 10, 98)
    assert np.allclose(log_mel(noise, rate, 10, 40), whole[:, :40], atol=1e-5)
    padded = log_mel(noise, rate, 10, 120)
    assert np.allclose(padded[:, :98], whole, atol=1e-5)
    assert np.allclose(padded[:, 98:], np.log(FLOOR))


def test_a_frame_of_the_spectrogram_is_the_documented_sum():
    rate = 8000
    noise = np.random.default_rng(2).standard_normal(400).astype(np.float64)
    frame = noise[80:280] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200))
    power = np.abs(np.fft.rfft(frame, 256)) ** 2
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 7) / 2595) - 1)
    hertz = np.arange(129) * rate / 256
    energy = sum(p * np.interp(f, corners[2:5], [0, 1, 0]) for p, f in zip(power, hertz, strict=True))
    assert log_mel(noise.astype(np.float32), rate, 5, 3)[2, 1] == pytest.approx(np.log(energy + FLOOR), rel=1e-4)


def test_waveforms_and_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(50, 0.5), np.full(50, -0.25)], 1), 8000)
    wave = load_recording(tmp_path / "a.wav", 8000)
    assert wave.shape == (50,)
    assert np.allclose(wave, 0.125, atol=1e-3)
    how = Preprocess(features=Features.WAVEFORM, sample_rate=8000)
    inputs, _ = adapter_of(Task.AUDIO, (1, 80), how).encode(wave)
    assert inputs["audio"].shape == (1, 80)
    assert (inputs["audio"][0, 50:] == 0).all()
    with pytest.raises(UserError, match=r"8000 Hz and preprocess\.sample_rate is 16000"):
        load_recording(tmp_path / "a.wav", 16000)


def test_a_model_is_fed_by_name_or_in_order():
    ids, mask = np.zeros((1, 4)), np.ones((1, 4))
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids}
    assert list(feed(given, ["attention_mask", "input_ids"])) == ["attention_mask", "input_ids"]
    assert feed(given, ["tokens"])["tokens"] is ids
    assert feed(ids, ["whatever"])["whatever"] is ids
    with pytest.raises(StepError, match="the model has the inputs a, b, c, d"):
        feed(given, list("abcd"))


class ByName(torch.nn.Module):
    def forward(self, attention_mask, input_ids):
        return {"logits": (input_ids * attention_mask).sum(1, keepdim=True)}


class ByPlace(torch.nn.Module):
    def forward(self, tokens, scale=2):
        return (tokens.sum(1, keepdim=True) * scale,)


def test_a_module_gets_the_inputs_that_it_takes():
    names = ("input_ids", "attention_mask", "token_type_ids")
    tensors = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.tensor([[0, 1]])}
    assert inputs_taken(ByName(), names) == ("input_ids", "attention_mask")
    assert call(ByName(), tensors, inputs_taken(ByName(), names)).tolist() == [[2]]
    assert inputs_taken(ByPlace(), names) == ("input_ids",)
    assert call(ByPlace(), tensors, ("input_ids",)).tolist() == [[6]]
    with pytest.raises(StepError, match=r"returned a Tensor of shape \[3\]"):
        logits_of(torch.zeros(3))
