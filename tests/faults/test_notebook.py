"""A notebook from a table to a model of another program, with ranks of its own, executed as Jupyter does it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.serial.raw_files import write_csv

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel nbformat")
nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel nbformat")
pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel nbformat")
pandas = pytest.importorskip("pandas", reason="pip install pandas")
pytest.importorskip("sklearn", minversion="1.6", reason="pip install 'scikit-learn>=1.6'")

_ROOT = str(Path(__file__).parents[2])

_CELLS = [
    f"import sys; sys.path.insert(0, {_ROOT!r})\n"
    "import pandas, matplotlib, lepton_mpi\n"
    "from lepton_mpi import LeptonClassifier\n"
    "frame = pandas.read_csv('flowers.csv')\n"
    "X, y = frame.drop(columns='kind'), frame['kind']",
    "model = LeptonClassifier(hidden=(16,), epochs=15, learning_rate=0.01, n_ranks=4).fit(X, y)\n"
    "print('ranks', model.figures_['world_size'], 'accuracy', round(model.score(X, y), 3))",
    "print(model.predict(X[:3]).tolist())",
    "matplotlib.use('agg')\n"
    "import io, matplotlib.pyplot as plt\n"
    "from IPython.display import Image\n"
    "plt.plot(model.loss_curve_); picture = io.BytesIO(); plt.savefig(picture, format='png')\n"
    "Image(picture.getvalue())",
    "import subprocess, onnxruntime, numpy as np\n"
    "model.save('model.h5')\n"
    "words = ['export', 'model.h5', 'model.onnx', '--preprocess']\n"
    "subprocess.run([sys.executable, '-m', 'lepton_mpi', *words], check=True)\n"
    "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
    "(given,) = session.get_inputs()\n"
    "outputs = session.run(None, {given.name: X.to_numpy(np.float64)})\n"
    "proba = model.predict_proba(X)\n"
    "print('difference', min(abs(o - proba).max() for o in outputs if np.shape(o) == proba.shape))",
    "def sizes():\n"
    "    from mpi4py import MPI\n"
    "    return MPI.COMM_WORLD.allgather(MPI.COMM_WORLD.rank)\n"
    "print(lepton_mpi.launch(sizes, ranks=4))",
    "def wrong():\n"
    "    raise ValueError('of a rank')\n"
    "try:\n"
    "    lepton_mpi.launch(wrong, ranks=2, quiet=True)\n"
    "except lepton_mpi.errors.RankError as error:\n"
    "    print(str(error).splitlines()[0])",
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_from_a_table_to_another_program(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).normal(size=(300, 4)).round(3)
    kinds = np.where(x[:, 0] + x[:, 1] > 0, "setosa", "virginica")
    write_csv(tmp_path / "flowers.csv", [[*row, k] for row, k in zip(x.tolist(), kinds, strict=True)], *"abcd", "kind")  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", _ROOT)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in _CELLS])
    kernels = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": words, "display_name": "Python", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    client = nbclient.NotebookClient(
        notebook,
        timeout=250,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    words = texts[1].split()
    assert words[:2] == ["ranks", "4"] and float(words[3]) > 0.9
    assert set(eval(texts[2])) <= {"setosa", "virginica"}
    pictures = [o for o in notebook.cells[3].outputs if "image/png" in o.get("data", {})]
    assert pictures
    assert float(texts[4].split()[-1]) < 1e-5
    assert texts[5].split("\n")[-2] == "[0, 1, 2, 3]"
    assert texts[6].startswith(
        ("rank 0 of 2 failed: ValueError: of a rank", "rank 1 of 2 failed: ValueError: of a rank")
    )
