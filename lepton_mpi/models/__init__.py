"""From batch to gradient; nothing here knows a rank, a file or an optimizer.

model.py           START HERE: what a model is, and what it is built for
mlp.py, logistic.py, gpt.py    the built-in ones; registry.py has them by name, gpt_options.py what gpt alone has
network.py         a model made of layers
wide_and_deep.py   such a model for tables with categories, its options in wide_options.py
cnn.py, resnet.py, tcn.py    such models for images and signals; convolutional.py has what they share, image_options.py their options
speech_cnn.py, speech_gru.py    such models for sounds; speech_options.py has their options
own_model.py       a user's own model; first_step.py checks it in its first micro-batch
gradient_check.py  a gradient against finite differences
"""
