"""Parameters and FLOPs of a GPT, by the formulas of chapter 06."""


def n_params(config):
    """(N without the embedding, N_total) of a GPT with this config; norms are counted."""
    per_layer = 12 * config.d_model**2 + 2 * config.d_model  # qkv 3, out 1, up 4, down 4; norms
    N = config.n_layer * per_layer + config.d_model  # non-embedding
    N_total = N + config.vocab * config.d_model
    return N, N_total


def flops_per_token(config, seq):
    """Exact training FLOPs per token, forward and backward, in windows of `seq` tokens.

    Matrix products alone, as `torch.utils.flop_counter` counts them: norms, GELU, softmax and
    rotations are left out. Full (unmasked) scores are counted, as the plain kernel computes them.
    """
    N_mat = config.n_layer * 12 * config.d_model**2 + config.vocab * config.d_model
    scores_and_mix = 2 * config.n_layer * seq * config.d_model  # multiply-adds of q·k and w·v
    forward = 2 * (N_mat + scores_and_mix)
    return 3 * forward  # the backward pass costs twice the forward pass
