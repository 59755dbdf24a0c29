"""Torch programs of convolutional models: ``cnn``, the resnets, ``speech_cnn``."""

from lepton_mpi.exporting.subject import Subject
from lepton_mpi.models.image_options import GROUP_CHANNELS


def cnn(subject: Subject) -> str:
    shapes, options = subject.model.shapes, subject.options
    (height, width, inputs), lines = _image(subject), []
    for number, outputs in enumerate(options["channels"]):
        conv = f"nn.Conv2d({inputs}, {outputs}, 3, padding=1{bias_of(options['norm'])})"
        pool = ""
        if min(height, width) >= 2:
            pool, height, width = f" pool{number}=nn.MaxPool2d(2),", height // 2, width // 2
        lines.append(f"    block{number}=normed({conv}),{pool}")
        inputs = outputs
    flat, units = shapes["units/weight"]
    parts = "\n".join(lines)
    return f"""
{rows_text(subject)}

{normed_text(options["norm"])}

model = nn.Sequential(OrderedDict(
    rows=Rows(),
{parts}
    flat=nn.Flatten(), units=nn.Linear({flat}, {units}), relu=nn.ReLU(),
    classes=nn.Linear({units}, {subject.data.output_count}),
))"""


def speech_cnn(subject: Subject) -> str:
    options, channels = subject.options, _image(subject)[2]
    width, bias = options["width"], bias_of(options["norm"])
    return f"""
{rows_text(subject)}

{normed_text(options["norm"])}

def block():
    depthwise = nn.Conv2d({width}, {width}, 3, padding=1, groups={width}{bias})
    return nn.Sequential(OrderedDict(depthwise=normed(depthwise), pointwise=normed(nn.Conv2d({width}, {width}, 1{bias}))))


model = nn.Sequential(OrderedDict(
    rows=Rows(), pad=nn.ZeroPad2d((1, 2, 4, 5)),
    stem=normed(nn.Conv2d({channels}, {width}, (10, 4), 2{bias})),
    **{{f"block{{n}}": block() for n in range({options["blocks"]})}},
    pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
    classes=nn.Linear({width}, {subject.data.output_count}),
))"""


def resnet(subject: Subject) -> str:
    """Blocks of each stage by name, and the stem, are those of ``models/resnet.py``."""
    options, shapes = subject.options, subject.model.shapes
    width, norm, bias = options["width"], options["norm"], bias_of(options["norm"])
    is_large = subject.name == "resnet18"
    names = {name.partition("/")[0] for name in shapes if name.startswith("stage")}
    stages, inputs = [], width
    for stage in range(4 if is_large else 3):
        count = len([name for name in names if name.startswith(f"stage{stage}_")])
        given = f"{inputs}, {width << stage}, {count}, {2 if stage else 1}"
        stages.append(f"    layer{stage + 1}=stage({given}),")
        inputs = width << stage
    window = "7, 2, 3" if is_large else "3, 1, 1"
    pool = " maxpool=nn.MaxPool2d(3, 2, 1)," * is_large
    layers = "\n".join(stages)
    return f"""
{rows_text(subject)}

def norm(channels):
    return {norm_of(norm, "channels")}


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1{bias})
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1{bias})
        self.bn2 = norm(outputs)
        self.downsample = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride{bias}), norm(outputs))

    def forward(self, x):
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (h + self.downsample(x)).relu()


def stage(inputs, outputs, count, stride):
    more = [Block(outputs, outputs, 1) for _ in range(count - 1)]
    return nn.Sequential(Block(inputs, outputs, stride), *more)


model = nn.Sequential(OrderedDict(
    rows=Rows(), conv1=nn.Conv2d({_image(subject)[2]}, {width}, {window}{bias}), bn1=norm({width}), relu=nn.ReLU(),{pool}
{layers}
    pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear({inputs}, {subject.data.output_count}),
))"""


def rows_text(subject: Subject) -> str:
    """A module that makes rows, channels last, what torch's convolutions read."""
    (x,) = subject.model.inputs.values()
    shape = ", ".join(map(str, x.shape))
    return f"""
class Rows(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), {shape}).movedim(-1, 1)
"""


def normed_text(norm: str, kind: str = "2d") -> str:
    """A function that puts a normalisation, or nothing, and a ReLU behind a convolution, by the names of ``models/convolutional.py``."""
    if norm == "none":
        return """def normed(conv, relu=True):
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU())) if relu else conv
"""
    made = norm_of(norm, "conv.out_channels", kind)
    return f"""def normed(conv, relu=True):
    end = nn.ReLU() if relu else nn.Identity()
    return nn.Sequential(OrderedDict(conv=conv, norm={made}, relu=end))
"""


def norm_of(norm: str, channels: str, kind: str = "2d") -> str:
    """The module; none leaves what comes in."""
    if norm == "none":
        return "nn.Identity()"
    if norm == "group":
        return f"nn.GroupNorm({channels} // {GROUP_CHANNELS}, {channels})"
    return f"nn.BatchNorm{kind}({channels})"


def bias_of(norm: str) -> str:
    """Behind the other arguments of a convolution."""
    return "" if norm == "none" else ", bias=False"


def _image(subject: Subject) -> tuple[int, int, int]:
    (x,) = subject.model.inputs.values()
    height, width, channels = x.shape
    return height, width, channels
