"""The small classifiers of the samples: what a user might have trained, in plain torch."""

import math

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2016, basic block)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        same = stride == 1 and channels_in == channels_out
        self.around = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        return torch.relu(self.body(x) + self.around(x))


class ResidualNet(nn.Module):
    """Stages of residual blocks, average pooling, a linear layer.

    Args:
        channels_in: of the input.
        classes: outputs.
        width: channels of the first stage, doubled by each further one.
        stages: how many; the resolution is halved between them.
        blocks: in each stage.
    """

    def __init__(self, channels_in: int, classes: int, width: int, stages: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
        for stage in range(stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(ResidualBlock(channels, width << stage, stride))
                channels = width << stage
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, classes]."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


def digit_classifier(classes: int = 10, width: int = 32) -> nn.Module:
    """A residual net of about 0.7 million parameters for images of about 28 x 28 pixels."""
    return ResidualNet(3, classes, width, stages=3, blocks=2)


class SpectrogramNet(nn.Module):
    """A residual net on a log-mel spectrogram, normalised by a batch norm."""

    def __init__(self, classes: int, mels: int, width: int) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(mels)
        self.net = ResidualNet(1, classes, width, stages=3, blocks=2)

    def forward(self, audio: Tensor) -> Tensor:
        """[N, mels, frames] -> logits [N, classes]."""
        logits: Tensor = self.net(self.scale(audio)[:, None])
        return logits


def language_classifier(classes: int = 3, mels: int = 40, width: int = 16) -> nn.Module:
    """A residual net of about 0.2 million parameters for log-mel spectrograms."""
    return SpectrogramNet(classes, mels, width)


class TextTransformer(nn.Module):
    """Token and position embeddings, transformer blocks, the mean over what is no padding, a linear layer.

    Args:
        vocabulary: tokens that the tokenizer knows.
        classes: outputs.
        width: of the embeddings.
        layers: transformer blocks.
        heads: of their attention.
        tokens: the longest text.
    """

    def __init__(self, vocabulary: int, classes: int, width: int, layers: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask, each int64 [N, tokens] -> logits [N, classes]."""
        x = self.tokens(input_ids) + self.positions.weight[: input_ids.shape[1]]
        seen = attention_mask.to(x.dtype)
        hidden = (1 - seen)[:, None, None, :] * -1e4
        for block in self.blocks:
            x = block(x, hidden)
        weights = seen[:, :, None]
        logits: Tensor = self.head((self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1))
        return logits


class TextBlock(nn.Module):
    """Attention and a feed-forward net, each behind a layer norm (Vaswani et al. 2017, norms first)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[N, tokens, width], and what is added to the attention of padding [N, 1, 1, tokens]."""
        y = self.attention_norm(x)
        query, key, value = (self._split(layer(y)) for layer in (self.query, self.key, self.value))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + hidden).softmax(-1)
        mixed: Tensor = x + self.mix((weights @ value).transpose(1, 2).flatten(2))
        fed: Tensor = mixed + self.feed(self.feed_norm(mixed))
        return fed

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def spam_classifier(vocabulary: int = 4096, classes: int = 2, width: int = 128, tokens: int = 128) -> nn.Module:
    """A transformer of two blocks and about a million parameters."""
    return TextTransformer(vocabulary, classes, width, layers=2, heads=4, tokens=tokens)
