"""A checkpoint as a file that other programs read: ONNX, safetensors, NumPy and Keras; nothing here trains.

export.py         START HERE: which formats there are, what is refused, how a file is written
subject.py        what is exported: the model as a network of layers, its parameters, what its data stand for
onnx_model.py     the graph: inputs, preprocessing, a function for each kind of layer, outputs, metadata
onnx_graph.py     nodes and constants by name
onnx_pointwise.py, onnx_windows.py, onnx_norms.py, onnx_recurrent.py, onnx_language.py, onnx_tables.py    the layers
named_arrays.py   parameters by the names and layouts of torch, Keras and this program
torch_program.py, torch_images.py, torch_sequences.py, torch_gpt.py    a torch module for each built-in model, as a short program

A layer of the package has its function in one of the ``onnx_*.py``, and one line in ``onnx_model.LAYERS``.
"""
