"""From batch to gradient; knows nothing of ranks.

A model is any object with these attributes; the built-in ones use the same door as a user's own:

``shapes``
    Mapping of parameter name to shape, in forward order.
``loss_and_gradient(parameters, batch, gradient) -> loss`` or ``(loss, correct_count)``
    Fill every array of ``gradient``, and return the loss, both **summed** over the rows of the batch, not
    averaged: the engine adds the sums of all ranks and divides by the rows of all ranks.
    ``parameters`` and ``gradient`` are dicts of name to array, of the configured dtype; ``parameters``
    must not be changed. ``correct_count``, if given, is the number of rows classified correctly. Both are
    ``vectors.Views``, in which a name keeps its array.
    ``gradient.done(name)`` may be called as soon as an array is filled, best from the last layer to the first, or
    ``gradient.done(name, start, stop)`` for a part of its elements, best from its end: between hosts it is summed while
    the rest is computed. After the last of them no array of ``parameters`` must be read.
    Random numbers, if any, should be a function of ``batch.draw`` and ``batch.rows``, never of a generator
    with a state: then the weights do not depend on the number of ranks.
``evaluate(parameters, batch, predicted) -> loss`` (optional)
    Fill ``predicted`` with the predicted classes, int32 of shape (rows,), or the predicted targets, of the
    dtype and shape of ``batch.y``, and return the summed loss.
    Without it the run reports no validation and no test figures.
``initialise(parameters, seed)`` (optional)
    Fill the arrays of ``parameters``; the default is ``initialise_uniform``.
``asks_for_parameters`` (optional)
    True for a model that calls ``parameters.need(name)`` before ``loss_and_gradient`` reads an array, if
    ``parameters.is_awaited``: then, between hosts, a step may begin before the last one's sums have all arrived.
``reads_in_place`` (optional)
    True for a model that minds ``batch.places``: then rows are not gathered where they can be read as they lie.
"""
