"""Torch programs of models of sequences: ``tcn``, ``speech_gru``."""

from lepton_mpi.exporting.subject import Subject
from lepton_mpi.exporting.torch_images import bias_of, normed_text, rows_text


def tcn(subject: Subject) -> str:
    options, (_, channels) = subject.options, next(iter(subject.model.inputs.values())).shape
    width, taps, bias = options["width"], options["taps"], bias_of(options["norm"])
    return f"""
{rows_text(subject)}

class Causal(nn.Conv1d):
    def forward(self, x):
        before = self.dilation[0] * (self.kernel_size[0] - 1)
        return super().forward(nn.functional.pad(x, (before, 0)))


{normed_text(options["norm"], "1d")}

class Level(nn.Module):
    def __init__(self, inputs, dilation):
        super().__init__()
        first = normed(Causal(inputs, {width}, {taps}, dilation=dilation{bias}))
        second = normed(Causal({width}, {width}, {taps}, dilation=dilation{bias}), relu=False)
        parts = {{"body": nn.Sequential(OrderedDict(first=first, second=second))}}
        if inputs != {width}:
            parts["shortcut"] = normed(nn.Conv1d(inputs, {width}, 1{bias}), relu=False)
        self.residual = nn.ModuleDict(parts)

    def forward(self, x):
        beside = self.residual["shortcut"](x) if "shortcut" in self.residual else x
        return (self.residual["body"](x) + beside).relu()


model = nn.Sequential(OrderedDict(
    rows=Rows(),
    **{{f"level{{n}}": Level({width} if n else {channels}, 2**n) for n in range({options["levels"]})}},
    pool=nn.AdaptiveAvgPool1d(1), flat=nn.Flatten(), classes=nn.Linear({width}, {subject.data.output_count}),
))"""


def speech_gru(subject: Subject) -> str:
    options, (_, features) = subject.options, next(iter(subject.model.inputs.values())).shape
    length = next(iter(subject.model.inputs.values())).shape[0]
    states = options["width"] * (2 if options["bidirectional"] else 1)
    pooled = "x.mean(1)" if options["pooling"] == "mean" else "torch.cat(tuple(last), -1)"
    more = f"batch_first=True, bidirectional={options['bidirectional']}"
    return f"""

class SpeechGru(nn.Module):
    def __init__(self):
        super().__init__()
        for n in range({options["layers"]}):
            self.add_module(f"gru{{n}}", nn.GRU({states} if n else {features}, {options["width"]}, {more}))
        self.classes = nn.Linear({states}, {subject.data.output_count})

    def forward(self, x):
        x = x.reshape(len(x), {length}, {features})
        for n in range({options["layers"]}):
            x, last = self.get_submodule(f"gru{{n}}")(x)
        return self.classes({pooled})


model = SpeechGru()"""
