"""Torch programs of models of tables: ``mlp``, ``logistic``, ``wide_and_deep``."""

from lepton_mpi.exporting.subject import Subject
from lepton_mpi.layers.crossed_linear import CrossedLinear
from lepton_mpi.models.mlp import Mlp

ACTIVATIONS = {
    "relu": "nn.ReLU()",
    "gelu": "nn.GELU()",
    "gelu_tanh": 'nn.GELU(approximate="tanh")',
    "tanh": "nn.Tanh()",
    "sigmoid": "nn.Sigmoid()",
    "silu": "nn.SiLU()",
}


def mlp(subject: Subject) -> str:
    model = subject.model
    assert isinstance(model, Mlp)
    lines, last = [], len(model.widths) - 2
    for number, (inputs, outputs) in enumerate(
        zip(model.widths[:-1], model.widths[1:], strict=True)
    ):
        behind = f" activation{number}={ACTIVATIONS[model.activation]}," * (number < last)
        lines.append(f"    layer{number}=nn.Linear({inputs}, {outputs}),{behind}")
    parts = "\n".join(lines)
    return f"""
model = nn.Sequential(OrderedDict(
    rows=nn.Flatten(),
{parts}
))"""


def logistic(subject: Subject) -> str:
    (features,) = subject.model.shapes["weight"]
    return f"""

class Logistic(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))


model = Logistic({features}, 1)"""


def wide_and_deep(subject: Subject) -> str:
    shapes, crossed = subject.model.shapes, _crossed(subject)
    rows, outputs = shapes["wide/categories/weight"]
    tables = [shape for name, shape in shapes.items() if "/column" in name]
    numbers = shapes.get("wide/numbers/linear/weight", (0,))[0]
    is_hashed = bool(crossed.is_hashed.any())
    arguments = subject.arguments()
    kinds = {spec.kind: arguments[name] for name, spec in subject.data.inputs.items()}
    x = f"{kinds['numbers']}.flatten(1)" if numbers else ""
    linear = f'"numbers": nn.ModuleDict({{"linear": nn.Linear({numbers}, {outputs}, bias=False)}}),'
    row = "hashed(row, size) if is_hashed else row" if is_hashed else "row"
    wide = f'self.wide["numbers"]["linear"]({x}) + ' * bool(numbers)
    return f"""
VALUES = {list(crossed.values)}
TABLES = {tables}
# Of every column and cross: its columns, the first of its rows and how many these are, whether codes are hashed to them.
FEATURES = [
{_features(crossed)}
]
{_HASH * is_hashed}

def rows_of(codes):
    found = []
    for columns, start, size, is_hashed in FEATURES:
        row = torch.zeros_like(codes[:, 0])
        for column in columns:
            row = row * VALUES[column] + codes[:, column]
        found.append(start + ({row}))
    return torch.stack(found, 1)


class WideAndDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.ModuleDict({{
{f"            {linear}{chr(10)}" * bool(numbers)}            "categories": nn.EmbeddingBag({rows}, {outputs}, mode="sum"),
        }})
        columns = {{f"column{{j}}": nn.Embedding(*shape) for j, shape in enumerate(TABLES)}}
        self.deep = nn.ModuleDict({{
            "features": nn.ModuleDict({{"categories": nn.ModuleDict(columns)}}),
{_deep_layers(subject, numbers + sum(width for _, width in tables))}
        }})

    def forward(self, {", ".join(arguments.values())}):
        codes = {kinds["categories"]}.flatten(1).long()
        tables = self.deep["features"]["categories"]
        h = [tables[f"column{{j}}"](codes[:, j]) for j in range(len(TABLES))]
        h = torch.cat([{f"{x}, " * bool(numbers)}*h], 1)
        for name, layer in self.deep.items():
            h = h if name == "features" else layer(h)
        return {wide}self.wide["categories"](rows_of(codes)) + h


model = WideAndDeep()"""


_HASH = """

def shifted(row, by):
    return (row >> by) & ((1 << (64 - by)) - 1)


def hashed(row, size):
    row = (row ^ shifted(row, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    row = (row ^ shifted(row, 27)) * (0x94D049BB133111EB - (1 << 64))
    row = row ^ shifted(row, 31)
    return (shifted(row, 1) % size * 2 + (row & 1)) % size
"""


def _crossed(subject: Subject) -> CrossedLinear:
    network, _ = subject.network()
    found = [n.layer for n in network.graph.nodes if isinstance(n.layer, CrossedLinear)]
    return found[0]


def _features(layer: CrossedLinear) -> str:
    """Lines of a list."""
    starts, lines = layer.starts.tolist(), []
    for number, (columns, is_hashed) in enumerate(
        zip(layer.features, layer.is_hashed, strict=True)
    ):
        start, stop = starts[number : number + 2]
        lines.append(f"    ({columns}, {start}, {stop - start}, {bool(is_hashed)}),")
    return "\n".join(lines)


def _deep_layers(subject: Subject, inputs: int) -> str:
    """Entries of the module's mapping, in the order of the forward pass, a line for each hidden layer."""
    norm, lines = subject.options["norm"], []
    norms = {"layer": "LayerNorm", "batch": "BatchNorm1d", "sync_batch": "BatchNorm1d"}
    for number, outputs in enumerate(subject.options["hidden"]):
        bias = "" if norm == "none" else ", bias=False"
        parts = [f'"hidden{number}": nn.Linear({inputs}, {outputs}{bias})']
        if norm != "none":
            parts.append(f'"norm{number}": nn.{norms[norm]}({outputs})')
        parts.append(f'"activation{number}": {ACTIVATIONS[subject.options["activation"]]}')
        lines.append(f"            {', '.join(parts)},")
        inputs = outputs
    lines.append(f'            "out": nn.Linear({inputs}, {subject.data.output_count}),')
    return "\n".join(lines)
