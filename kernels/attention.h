// Arguments of the attention operations, and how keys and values are stored.
//
// Every layer keeps two planes of pages per KV head, in the compute dtype:
//
//   values  [num_pages, kv_heads, 64, d]
//   keys    [num_pages, kv_heads, 64, 2 * key_half]
//
// A key plane holds the channels [0, key_half) and [d/2, d/2 + key_half) of the
// normed and rotated key: the pairs (i, i + d/2) that RoPE turns together.
//
// * key_half = d/2: whole keys, independent of the values (window layers).
// * key_half < d/2: the layer has k_eq_v, and only its A = key_half rotating
//   pairs are stored.  For every other channel the key is w * value with the
//   fixed weight w of k_norm, so w is folded into the query and the value
//   serves as key: the "latent" form, d + 2A values a token instead of 2d.
//
// A score is then, for a query q in the channel order of the head,
//
//   sum over c < key_half of      q[c] keys[c] + q[d/2 + c] keys[key_half + c]
//   + sum over key_half <= c < d/2 of q[c] values[c] + q[d/2 + c] values[d/2 +
//   c]
//
// with no scale factor.  A head-major page is one contiguous block for the
// kernel that reads it; with one KV head (12B) it equals the token-major form.

#ifndef KERNELS_ATTENTION_H_
#define KERNELS_ATTENTION_H_

#include <climits>
#include <cstdint>
#include <span>

#include "common/tokens.h"
#include "kernels/tensor.h"

namespace lapidary {

// One sequence's part of a step: its queries and where its keys lie.
struct AttentionSequence {
  int first_row = 0;  // Row of its first token in q and out.
  int num_tokens = 0;
  int start = 0;  // Position of its first token; the others follow.
  // A step's keys and values may begin earlier than its queries: the row of
  // position p >= start - earlier_keys among them is
  // first_row + earlier_keys + p - start.  At most `start`.
  int earlier_keys = 0;
  // Attends to positions in [first_key, end_key) alone: a long context may be
  // attended to in segments, which MergeAttention joins.  Multiples of 64;
  // end_key may be INT_MAX.  No page outside is looked at.
  int first_key = 0;
  int end_key = INT_MAX;
  // Page table: logical page p, tokens [64 p, 64 p + 64), is
  // pages[p - first_page]; kNoPage where no query looks.
  const PageId* pages = nullptr;
  int first_page = 0;
  int num_pages = 0;
};

// The planes of one layer.
struct KvPlanes {
  void* keys = nullptr;    // [num_pages, kv_heads, 64, 2 * key_half]
  void* values = nullptr;  // [num_pages, kv_heads, 64, d]
  DType dtype = DType::kF32;
  int kv_heads = 0;
  int head_dim = 0;
  int key_half = 0;
};

// q and k from their projections to what attention uses and what is stored.
//
//   q <- rope(rms(q; q_norm)), then channels outside the stored pairs times
//        k_norm (one rounding, from fp32)
//   keys <- the stored pairs of rope(rms(k; k_norm));  values <- rms(v)
//
// Either line may be left out: where q has no data, or where k and v have none.
struct QkNormRopeArgs {
  Tensor q = {};                 // [T, H * d], in place, or no data.
  Tensor k = {};                 // [T, K * d], raw k_proj output, or no data.
  Tensor v = {};                 // [T, K * d]; equals `k` under k_eq_v.
  const Bf16* q_norm = nullptr;  // [d]
  const Bf16* k_norm = nullptr;  // [d]
  float epsilon = 0;
  int head_dim = 0;
  int key_half = 0;
  // Angles of the T positions: cos and sin, [T, num_angles] fp32 each.  Pairs
  // from num_angles to d/2 do not turn.
  const float* cos = nullptr;
  const float* sin = nullptr;
  int num_angles = 0;
  Tensor keys = {};  // [T, K * 2 * key_half], out.
  // [T, K * d], out; may be the memory of `v`, if not of `k`.
  Tensor values = {};
};

// Copies rows of a step's keys and values to their pages.
struct WriteKvArgs {
  Tensor keys;    // [T, K * 2 * key_half]
  Tensor values;  // [T, K * d]
  KvPlanes planes;
  // Writes, of each sequence, the positions >= first_position that have a row
  // (from start - earlier_keys on) and whose page-table entry is a page.
  std::span<const AttentionSequence> sequences;
  std::span<const int> first_positions;  // One a sequence.
};

// Copies what the pages of one sequence hold to dense rows: row i becomes
// position first_position + i.
//
// REQUIRES: the page table has a page for each of these positions.
struct ReadKvArgs {
  KvPlanes planes;
  const PageId* pages = nullptr;  // As in AttentionSequence.
  int first_page = 0;
  int num_pages = 0;
  int first_position = 0;
  Tensor keys;    // [n, K * 2 * key_half], out.
  Tensor values;  // [n, K * d], out.
};

// Softmax attention of a step's queries over paged keys and values.
//
// Query position p sees key positions k with k <= p, and k > p - window if
// window > 0, in its sequence's segment.  Keys at positions >= start -
// earlier_keys come from step_keys and step_values if these are given, all
// others from pages.  A row that sees no key gets out = 0, lse = -infinity.
//
// A row's result depends on its own query, position and keys alone: tiles of
// keys are cut at multiples of 64 positions and added up in ascending order,
// whatever the chunk and the batch are.
struct AttendArgs {
  Tensor q;  // [T, H * d] as QkNormRope leaves it.
  KvPlanes planes;
  Tensor step_keys = {};    // [rows, K * 2 * key_half], or no data.
  Tensor step_values = {};  // [rows, K * d], or no data.
  std::span<const AttentionSequence> sequences;
  int num_heads = 0;  // H.
  // The heads of q are [first_head, first_head + H) of the layer's, of which
  // K divides the number; head h of the layer uses KV head h / (number / K).
  int first_head = 0;
  int num_layer_heads = 0;  // 0: H.
  int window = 0;           // 0: no window.
  // Logical page p is attended to by rank p % num_ranks alone.
  int rank = 0;
  int num_ranks = 1;
  Tensor out;       // [T, H * d], of q's dtype or fp32.
  Tensor lse = {};  // [T, H] fp32: log of the sum of exp(score), or no data.

  // Query heads of the layer for each KV head.
  int group() const {
    return (num_layer_heads == 0 ? num_heads : num_layer_heads) /
           planes.kv_heads;
  }
};

// What Attend gave for some of the keys.
struct AttentionPart {
  Tensor out;  // [T, H * d] fp32.
  Tensor lse;  // [T, H] fp32; -infinity: saw no key, and `out` is not read.
};

// One softmax out of several over disjoint keys.  With m = max over the parts
// of lse_i and w_i = exp(lse_i - m),
//
//   out = sum of w_i out_i / sum of w_i;  lse = m + log(sum of w_i)
//
// added in the order of the parts.  A row for which no part saw a key gets
// out = 0, lse = -infinity; one that a single part saw, that part's result bit
// for bit.
struct MergeAttentionArgs {
  static constexpr int kMaxParts = 64;

  std::span<const AttentionPart> parts;  // 1 to kMaxParts.
  int num_heads = 0;
  Tensor out;       // [T, H * d], fp32 or bf16; in fp32 it may be parts[0].out.
  Tensor lse = {};  // [T, H] fp32, or no data; may be parts[0].lse.
};

}  // namespace lapidary

#endif  // KERNELS_ATTENTION_H_
