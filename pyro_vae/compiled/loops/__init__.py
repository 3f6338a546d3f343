r"""Loops of a program, found in its recorded graph, so that their turns are done at once.

A loop over time slices leaves as many copies of the same few operations in a graph as it has turns.  Some of them wait
for one another, as the states of a recurrent network do; the others, the log-densities and the networks behind them,
say, are independent of each other, whatever the order in which they were recorded.  These are done together, on
operands that are stacked: one product of matrices for all time slices, the rows of all of them below one another.  What
the backward pass adds up turn by turn, the gradient of a weight say, becomes one sum over a stack.

Which operations are alike is told by what they do and what leads to them; which of them wait for one another by their
*rank*, the length of the longest chain of their like that ends in one.  Operations of a kind and a rank are done
together, once the last of them can be.  Neubig, Goldberg & Dyer, *On-the-fly Operation Batching in Dynamic Computation
Graphs* (2017), batch what is ready at each moment in this way; here the graph is known before, and rewritten once.

The result is that of the graph but for rounding, since sums are taken in another order.
"""

from pyro_vae.compiled.loops.writing import done_at_once

__all__ = ["done_at_once"]
