# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Start here
#
# **How much better does a model get for more compute, more or better data, or better compression,
# and can you say so before you spend the money?**
#
# That question runs through the whole course. In this chapter you will
#
# 1. see what your machine can do, in operations per second, and what that buys;
# 2. find your way: the map, the symbols, the words in English and 中文;
# 3. solve one exercise, wrongly first, and see what the checker says.
#
# Runs in about 1 minute on a CPU. A GPU shortens only the measurement.

# %% [markdown]
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $N$ | `N`, `N_total` | parameters, without and with the embedding | – |
# | $D$ | `D` | training tokens | tokens |
# | $C$ | `C` | training compute | FLOP |
# | $L$, $E$ | `loss`, `E` | cross-entropy; the part no model can remove | nats per token |
# | | `bpb` | the same per byte of text | bits per byte |
# | $A, B, \alpha, \beta$ | `A, B, alpha, beta` | the law $L = E + A/N^\alpha + B/D^\beta$ | – |
# | $N^*, D^*$ | `N_opt, D_opt` | best size and tokens for a given $C$ | – |
# | $\eta$ | `lr` | learning rate | – |
# | | `peak_flops` | operations per second at best | FLOP/s |

# %% tags=["imports"]
import json

import numpy as np
import torch

from helpers import plots, runtime
from helpers.exercises import check, hint, progress, solution

# %% tags=["config"]
rng = runtime.setup(seed=0)
DEVICE = runtime.device()
N_EXAMPLE, D_EXAMPLE = 1e6, 20e6  # a small language model and its training tokens
GPT3 = 3.14e23  # training FLOPs of GPT-3 175B (Brown et al. 2020)

# %% [markdown]
# ## Predict first
#
# A matrix product is the work that training consists of. How many multiplications and additions
# does your machine do in a second: a million, a billion, a thousand billion? And how long would
# it take to train GPT-3, which took about 3 · 10²³ of them? Write both down.

# %% [markdown]
# First the work. Training costs about six operations per parameter and token: two forward (a multiplication and
# an addition), four backward. Chapter 06 derives the exact number. So compute is
#
# $$C \approx 6 N D.$$

# %%
C = 6 * N_EXAMPLE * D_EXAMPLE
print(f"{N_EXAMPLE:.0e} parameters on {D_EXAMPLE:.0e} tokens: {C:.1e} FLOPs")

# %% tags=["nbval-ignore-output"]
# uncompared: this is about your machine
peak_flops = runtime.peak_flops(DEVICE)
for name, fact in runtime.describe().items():
    print(f"{name:>8}: {fact}")
print(f"    peak: {peak_flops / 1e9:,.0f} GFLOP/s (fp32 matrix product, one CPU thread or the GPU)")
print(f"At this peak the small model reads {peak_flops / 6 / N_EXAMPLE:,.0f} tokens/s and takes "
      f"{C / peak_flops / 60:.1f} minutes; GPT-3 takes {GPT3 / peak_flops / 3.156e7:,.0f} years.")
cpu = runtime.peak_flops(torch.device("cpu"))
chapters = [(f.stem[:2], json.loads(f.read_text(encoding="utf-8"))["metadata"])
            for f in sorted((runtime.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
print("Seconds that the cells of each chapter take here, scaled from the stored run by the CPU's "
      "peak:\n" + ", ".join(f"{number}: {kept['seconds'] * kept['gflops'] * 1e9 / cpu:.0f}"
                            for number, kept in chapters if "gflops" in kept))

# %% [markdown]
# Real training reaches a part of the peak; chapter 07 is about that share. What a
# thousand times more compute would bring is what a scaling law says. It is about the *reducible*
# loss: what lies above $E$, the part that no model can remove. Such laws look like this:

# %%
(ax,) = plots.panels()
compute = np.geomspace(1, 1e6, 50)
for exponent in (0.05, 0.1, 0.2):
    ax.plot(compute, compute**-exponent, label=f"exponent {exponent}")
plots.label(ax, "compute, relative", "reducible loss, relative", "A power law is a straight line",
            log="xy")
for exponent in (0.05, 0.1, 0.2):
    print(f"exponent {exponent}: ten times the compute leaves {10**-exponent:.0%} of "
          "the reducible loss")

# %% [markdown]
# *Reading.* On logarithmic axes each law is a straight line, and its slope is minus the exponent.
# Equal factors of compute bring equal factors of reducible loss: the second thousandfold divides it
# by as much as the first did, and costs a thousand times more.
#
# ## The map
#
# ```mermaid
# flowchart LR
#     subgraph I [Foundations]
#         A01[01 · Linear regression · 1 min] --> A02[02 · Gradient descent · 1 min]
#         A02 --> A03[03 · Classification and metrics · 1 min]
#         A03 --> A04[04 · Neural networks · 1 min] --> A05[05 · Data pipeline · 1 min]
#     end
#     subgraph II [The model]
#         A06[06 · Transformer · 3 min] --> A07[07 · Training at speed · 2 min]
#     end
#     subgraph III [Scaling laws]
#         A08[08 · Scaling sweeps · 1 min] --> A09[09 · Compute-optimal · 1 min]
#         A08 --> A10[10 · Data scaling · 1 min]
#     end
#     subgraph IV [Compression]
#         A11[11 · Pruning · 1 min] --> A12[12 · Quantization · 1 min]
#         A12 --> A13[13 · Distillation and compression of data · 1 min]
#     end
#     A05 --> A06
#     A07 --> A08
#     A06 --> A11
# ```
#
# How a network learns, in every chapter the same loop:
#
# ```mermaid
# flowchart LR
#     L[layers] --> P[prediction] --> S[loss] --> G[gradient] --> O[optimiser] --> U[update] --> L
# ```
#
# (Minutes are what the cells take on two CPU cores; the cell above that measured your machine says
# what to expect here. The README adds each chapter's question.)
#
# The course also tests statements. Two introductory articles on scaling laws, called *the article*
# (I and II), make claims that can be measured; each has a number, K1 to K17 (all are in
# `data/claims.csv`). A box gives the verdict, *confirmed*, *refuted* or *it depends*, computed by
# the cell above it.
#
# ## How exercises work
#
# An exercise is a function that you complete. Run its cell, then the check. Here is one, solved
# wrongly at first: a loss in nats is to become bits.

# %% tags=["exercise"]
def nats_to_bits(loss):
    """A loss in nats, converted to bits: one bit is ln 2 nats."""
    return loss * np.log(2)


# %%
check("00.1", nats_to_bits)

# %% [markdown]
# `✗` comes with what you got, what was expected, and why, if the mistake is a known one. Now
# right:

# %% tags=["exercise"]
def nats_to_bits(loss):
    """A loss in nats, converted to bits: one bit is ln 2 nats."""
    return loss / np.log(2)


# %% tags=["exercise-check"]
check("00.1", nats_to_bits)
# hint("00.1")
# solution("00.1")

# %% [markdown]
# The next one is yours. As long as it returns `NotImplemented` it counts as open, and the rest of
# the notebook still runs. Remove the `#` before `hint` to get a first hint, run it again for a
# second.

# %% tags=["exercise"]
def training_days(N, D, flops_per_second, mfu):
    """Days to train N parameters on D tokens, C = 6 N D.

    mfu is the share of the peak flops_per_second that the training reaches, 0 … 1.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("00.2", training_days)
# hint("00.2")
# solution("00.2")

# %% [markdown]
# The last one asks what the figure above means for a budget.

# %% tags=["exercise"]
def compute_to_halve(exponent):
    """By which factor must compute grow until the reducible loss, C^−exponent, is halved?"""
    return NotImplemented


# %% tags=["exercise-check"]
check("00.3", compute_to_halve)
# hint("00.3")
# solution("00.3")

# %% [markdown]
# Your progress is kept between sessions: `✓` solved, `✗` tried, `○` open, by chapter.

# %%
progress()

# %% [markdown]
# ## Glossary · 词汇表
#
# | English | 中文 | meaning |
# |---|---|---|
# | parameter | 参数 | a number that training adjusts |
# | token | 词元 | the unit of text a model reads: a byte, or a piece of a word |
# | loss | 损失 | how badly the model predicts, on average |
# | cross-entropy | 交叉熵 | the loss of a predicted distribution, in nats or bits |
# | gradient | 梯度 | the direction in which the loss rises fastest |
# | gradient descent | 梯度下降 | stepping against the gradient |
# | learning rate | 学习率 | the size of a step |
# | regularisation | 正则化 | a penalty that keeps parameters small |
# | overfitting | 过拟合 | good on the training data, worse on new data |
# | training, validation set | 训练集、验证集 | data to learn from, data to judge by |
# | embedding | 嵌入 | a token as a vector |
# | attention | 注意力 | a weighted mean over earlier positions |
# | transformer | Transformer 模型 | blocks of attention and small networks |
# | temperature | 温度 | divides the logits before sampling |
# | KV cache | 键值缓存 | keys and values kept while a text is written |
# | checkpoint | 检查点 | all that a run needs to go on, in a file |
# | gradient accumulation | 梯度累积 | a large batch in parts, one after the other |
# | data parallel | 数据并行 | each process takes a share of the batch |
# | critical batch size | 临界批量 | beyond it, more examples save few steps |
# | roofline | 屋顶线模型 | speed limited by arithmetic or by memory |
# | FLOP, FLOP/s | 浮点运算、每秒浮点运算次数 | an operation, and a speed |
# | compute | 算力 | all operations of a training run |
# | scaling law | 规模定律 | loss as a power law of size, data, compute |
# | power law | 幂律 | $y = a x^{-b}$, a straight line on log axes |
# | irreducible loss | 不可约损失 | what is left with endless size and data |
# | compute-optimal | 计算最优 | the best size and tokens for a given compute |
# | pruning | 剪枝 | setting weights to zero, or removing them |
# | quantization | 量化 | storing weights in few bits |
# | distillation | 蒸馏 | a small model learns from a large one |
# | confidence interval | 置信区间 | where a measured value plausibly lies |
# | differential privacy | 差分隐私 | a bound on what a model reveals of one example |
# | SGD, MSE, MLP | 随机梯度下降、均方误差、多层感知机 | stochastic gradient descent, mean squared error, multi-layer perceptron |
# | GPT, LLM | 生成式预训练变换器、大语言模型 | generative pre-trained transformer, large language model |
# | MFU | 模型算力利用率 | share of the peak that training reaches |

# %% [markdown]
# ## Recap
#
# - Training is counted in operations, $C \approx 6ND$, and a machine in operations per second.
# - A power law is a straight line on logarithmic axes.
# - `check`, `hint`, `solution` and `progress` go with you through every chapter.
#
# *Limits.* The peak is one matrix product of one size, on a CPU on one thread: no real training
# reaches it on that thread, and one on several threads can pass it.
#
# *Read next.* Chapter 01 begins with ten house prices and a line.
