"""Torch modules that tests train, each called as NAME(feature_shape, output_count)."""

from math import prod

import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Module):
    """Three layers; widths that put arrays at odd places of the flat vector."""

    def __init__(self, feature_shape, output_count, dropout=0.0):
        super().__init__()
        self.first = nn.Linear(prod(feature_shape), 33)
        self.second = nn.Linear(33, 17)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(17, output_count)

    def forward(self, x):
        x = torch.relu(self.first(x.flatten(1)))
        return self.last(self.drop(torch.relu(self.second(x))))


def dropping(feature_shape, output_count):
    return Mlp(feature_shape, output_count, dropout=0.3)


class Convolutional(nn.Module):
    """With BatchNorm of two momenta, one of them behind a dense layer."""

    def __init__(self, feature_shape, output_count):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.dense = nn.Linear(6 * 16, 20)
        self.dense_norm = nn.BatchNorm1d(20, momentum=0.3)
        self.last = nn.Linear(20, output_count)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.norm(self.conv(x.unsqueeze(1)))), 2)
        return self.last(torch.relu(self.dense_norm(self.dense(x.flatten(1)))))


class Recurrent(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self, feature_shape, output_count):
        super().__init__()
        self.lstm = nn.LSTM(feature_shape[-1], 13, batch_first=True)
        self.last = nn.Linear(13, output_count)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


class Language(nn.Module):
    """Embedding and output layer share one weight; a table of positions is a constant."""

    def __init__(self, feature_shape, output_count, dropout=0.1):
        super().__init__()
        self.embedding = nn.Embedding(output_count, 24)
        nn.init.normal_(self.embedding.weight, std=0.2)
        self.register_buffer("positions", torch.linspace(0, 1, feature_shape[0])[:, None])
        self.block = nn.TransformerEncoderLayer(24, 2, 48, dropout, batch_first=True)
        self.last = nn.Linear(24, output_count, bias=False)
        self.last.weight = self.embedding.weight
        mask = nn.Transformer.generate_square_subsequent_mask(feature_shape[0])
        self.register_buffer("mask", mask)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.positions
        return self.last(self.block(x, src_mask=self.mask, is_causal=True))


class Regression(nn.Module):
    """One output of one number a row."""

    def __init__(self, feature_shape, output_count):
        super().__init__()
        self.dense = nn.Linear(prod(feature_shape), 12)
        self.last = nn.Linear(12, output_count)

    def forward(self, x):
        return self.last(torch.tanh(self.dense(x.flatten(1)))).squeeze(1)
