"""Sums between hosts of vectors that are compressed, with error feedback: what a codec leaves out is added to the next vector.

codec.py            what a codec is, START HERE; ``options/names.py`` lists them
half.py             fp16, bf16                     half_kernels.py
int8.py int4.py     whole numbers and a scale      int8_kernels.py int4_kernels.py
sign.py             one bit and a scale            sign_kernels.py
topk.py             the largest elements           topk_kernels.py
randomk.py          elements at random             randomk_kernels.py
powersgd.py         matrices of low rank           powersgd_kernels.py
bit_kernels.py      floats by their bits, random numbers for a block: what the kernels have in common
compression.py      a codec over a group: residuals, lanes, and what is sent
exchange.py         lanes of codecs whose payloads are decoded
vector_lanes.py     lanes in which vectors are summed: payloads, or slices as they are
low_rank_lane.py    the lane of powersgd
choosing.py         auto: for which buckets a codec pays
compressed_sum.py   a sum over a group by these lanes, as a plan
"""
