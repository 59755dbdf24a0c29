"""Which published rule each built-in optimizer follows, and where torch and Keras differ: for ``--help``. Imports nothing.

The formulas are those of ``rule_kernels.py``; g is the mean gradient, clipped, and d the weight decay, if it is not said to be apart.
Sources: the documentation of torch.optim, and keras/src/optimizers of Keras 3.
"""

# What holds for all of them.
ORDER = (
    "What a step does, in this order, with g the mean gradient over the rows of the global batch: --clip-norm scales all of g to that "
    "norm (as torch's clip_grad_norm_, without the 1e-6 that it adds to the norm, and Keras's global_clipnorm; Keras's clipnorm is of each array alone); "
    "--clip-value then bounds each element (clip_grad_value_; Keras takes only one of the two); --weight-decay d then adds d w to g, unless the rule "
    "has it apart (Keras has it apart for all, torch for AdamW alone); then the rule. "
    "Weights have a decay, biases and the scales of norms have none; in torch and Keras all parameters have, unless they are left out by name."
)

TEXTS = {
    "sgd": "Momentum as Polyak (1964), the rate inside of the velocity: v = momentum v - rate g, w = w + v, as in Keras. torch has the rate "
    "outside, v = momentum v + g, w = w - rate v: the same at a constant rate, but there a new rate also acts on what v holds. "
    "--momentum 0: w = w - rate g.",
    "momentum": "sgd, by another name.",
    "nesterov": "Sutskever et al. (ICML 2013), the rate inside of the velocity: v = momentum v - rate g, w = w + momentum v - rate g, as "
    "SGD(nesterov=True) in Keras. torch has the rate outside, which differs where the rate changes.",
    "adam": "Algorithm 1 of Kingma and Ba (ICLR 2015), with both bias corrections and epsilon beside the root of the corrected second moment, as in "
    "torch. Keras has epsilon beside the root that is not corrected, and 1e-7. The decay is in the gradient, as in torch's Adam. "
    "--freeze-variance-after is that of 1-bit Adam (Tang et al., ICML 2021), but v is at least (1 - beta_2) g g.",
    "adamw": "Algorithm 2 of Loshchilov and Hutter (ICLR 2019), with w = w - rate d w apart from g: times the rate, as in torch and Keras, where the paper has its "
    "schedule's factor alone. No decay unless --weight-decay is given; torch has 0.01, Keras 0.004. epsilon as in adam.",
    "lion": "Program 1 of Chen et al. (NeurIPS 2023), as in Keras: w = w - rate (sign(beta_1 m + (1 - beta_1) g) + d w), then "
    "m = beta_2 m + (1 - beta_2) g. torch has none.",
    "adagrad": "Duchi et al. (JMLR 2011), diagonal: s = s + g g, w = w - rate g / (sqrt(s) + epsilon), s from 0, as in torch. Keras begins with s = 0.1, "
    "and has sqrt(s + epsilon) with 1e-7.",
    "rmsprop": "Tieleman and Hinton (2012), not centred, without momentum: s = rho s + (1 - rho) g g, w = w - rate g / (sqrt(s) + epsilon), as in "
    "torch, where rho is alpha. Keras has rho 0.9, and sqrt(s + epsilon) with 1e-7.",
}
