"""The methods of "Regularization: an executable companion", one module a section.

Import the module, then call the function: ``from regkit.weight_decay import soft_threshold``.

Index legend, used for every shape in this package: N samples, D inputs, M hidden units,
K outputs, W weights, J mixture components, T tasks, S seeds or stochastic passes.
"""
