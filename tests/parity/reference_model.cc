#include "tests/parity/reference_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "kernels/bf16.h"
#include "nlohmann/json.hpp"
#include "worker/loader/safetensors.h"

namespace lapidary {
namespace {

constexpr char kPrefix[] = "model.language_model.";
constexpr double kEpsilon = 1e-6;

// Row vectors, one a token.
struct Matrix {
  int rows = 0;
  int cols = 0;
  std::vector<double> values;

  Matrix(int rows, int cols)
      : rows(rows), cols(cols), values(static_cast<size_t>(rows) * cols) {}
  double* operator[](int r) { return &values[static_cast<size_t>(r) * cols]; }
  const double* operator[](int r) const {
    return &values[static_cast<size_t>(r) * cols];
  }
};

// x * w^T, w [out, in].
Matrix Linear(const Matrix& x, const std::vector<double>& w) {
  Matrix y(x.rows, static_cast<int>(w.size() / x.cols));
  for (int t = 0; t < y.rows; ++t) {
    for (int o = 0; o < y.cols; ++o) {
      double sum = 0;
      for (int i = 0; i < x.cols; ++i) sum += x[t][i] * w[o * x.cols + i];
      y[t][o] = sum;
    }
  }
  return y;
}

// Each run of `size` values divided by its root mean square, times `weight`
// (null: without).
void Normalize(Matrix& x, int size, const std::vector<double>* weight) {
  for (int t = 0; t < x.rows; ++t) {
    for (int first = 0; first < x.cols; first += size) {
      double* run = x[t] + first;
      double squares = 0;
      for (int i = 0; i < size; ++i) squares += run[i] * run[i];
      const double scale = 1 / std::sqrt(squares / size + kEpsilon);
      for (int i = 0; i < size; ++i) {
        run[i] *= scale * (weight != nullptr ? (*weight)[i] : 1.0);
      }
    }
  }
}

// Turns the pairs (i, i + d/2) of each head; positions are the rows.
void Rotate(Matrix& x, int d, int num_angles, double theta) {
  for (int i = 0; i < num_angles; ++i) {
    // As the reference: a float frequency, and a product of floats.
    const auto frequency = static_cast<float>(
        1.0 / static_cast<float>(std::pow(
                  theta, static_cast<float>(2 * i) / static_cast<float>(d))));
    for (int t = 0; t < x.rows; ++t) {
      const double angle = static_cast<float>(t) * frequency;
      const double cos = std::cos(angle), sin = std::sin(angle);
      for (int head = 0; head < x.cols; head += d) {
        double& a = x[t][head + i];
        double& b = x[t][head + i + d / 2];
        const double turned = a * cos - b * sin;
        b = b * cos + a * sin;
        a = turned;
      }
    }
  }
}

// Softmax over keys p with q - window < p <= q; window 0 means no limit.
Matrix Attend(const Matrix& q, const Matrix& k, const Matrix& v, int d,
              int window) {
  const int group = q.cols / k.cols;
  Matrix out(q.rows, q.cols);
  std::vector<double> p(q.rows);
  for (int t = 0; t < q.rows; ++t) {
    const int first = window > 0 ? std::max(0, t - window + 1) : 0;
    for (int head = 0; head < q.cols / d; ++head) {
      const int kv = head / group * d;
      double largest = -INFINITY, total = 0;
      for (int s = first; s <= t; ++s) {
        p[s] = 0;
        for (int i = 0; i < d; ++i) p[s] += q[t][head * d + i] * k[s][kv + i];
        largest = std::max(largest, p[s]);
      }
      for (int s = first; s <= t; ++s) {
        p[s] = std::exp(p[s] - largest);
        total += p[s];
      }
      for (int s = first; s <= t; ++s) {
        for (int i = 0; i < d; ++i) {
          out[t][head * d + i] += p[s] / total * v[s][kv + i];
        }
      }
    }
  }
  return out;
}

double GeluTanh(double x) {
  return 0.5 * x *
         (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void AddTo(Matrix& x, const Matrix& y) {
  for (size_t i = 0; i < x.values.size(); ++i) x.values[i] += y.values[i];
}

// One layer's weights by the ends of their names.
class Layer {
 public:
  Layer(const ReferenceWeights& weights, int layer)
      : weights_(weights), prefix_(absl::StrCat("layers.", layer, ".")) {}

  const std::vector<double>& operator[](const char* name) const {
    const auto it = weights_.find(prefix_ + name);
    CHECK(it != weights_.end()) << prefix_ << name;
    return it->second;
  }

 private:
  const ReferenceWeights& weights_;
  const std::string prefix_;
};

Matrix Attention(const SmallConfig& config, const Layer& w, bool global,
                 const Matrix& x) {
  const int d = global ? config.global_head_dim : config.head_dim;
  Matrix q = Linear(x, w["self_attn.q_proj.weight"]);
  Matrix k = Linear(x, w["self_attn.k_proj.weight"]);
  Matrix v =
      global && config.k_eq_v ? k : Linear(x, w["self_attn.v_proj.weight"]);
  Normalize(q, d, &w["self_attn.q_norm.weight"]);
  Normalize(k, d, &w["self_attn.k_norm.weight"]);
  Normalize(v, d, nullptr);
  const int num_angles =
      global ? static_cast<int>(config.rotating_part * d / 2) : d / 2;
  const double theta = global ? 1e6 : 1e4;
  Rotate(q, d, num_angles, theta);
  Rotate(k, d, num_angles, theta);
  return Linear(Attend(q, k, v, d, global ? 0 : config.window),
                w["self_attn.o_proj.weight"]);
}

Matrix FeedForward(const Layer& w, const Matrix& x) {
  Matrix gate = Linear(x, w["mlp.gate_proj.weight"]);
  const Matrix up = Linear(x, w["mlp.up_proj.weight"]);
  for (size_t i = 0; i < gate.values.size(); ++i) {
    gate.values[i] = GeluTanh(gate.values[i]) * up.values[i];
  }
  return Linear(gate, w["mlp.down_proj.weight"]);
}

void RunLayer(const SmallConfig& config, const Layer& w, bool global,
              Matrix& x) {
  const int h = config.hidden_size;
  Matrix a = x;
  Normalize(a, h, &w["input_layernorm.weight"]);
  a = Attention(config, w, global, a);
  Normalize(a, h, &w["post_attention_layernorm.weight"]);
  AddTo(x, a);

  Matrix f = x;
  Normalize(f, h, &w["pre_feedforward_layernorm.weight"]);
  f = FeedForward(w, f);
  Normalize(f, h, &w["post_feedforward_layernorm.weight"]);
  AddTo(x, f);
  for (double& value : x.values) value *= w["layer_scalar"][0];
}

}  // namespace

std::string ConfigJson(const SmallConfig& config) {
  nlohmann::json types = nlohmann::json::array();
  for (const bool global : config.is_global) {
    types.push_back(global ? "full_attention" : "sliding_attention");
  }
  nlohmann::json json = {
      {"model_type", "gemma4_unified_text"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.is_global.size()},
      {"num_attention_heads", config.num_heads},
      {"num_key_value_heads", config.num_kv_heads},
      {"num_global_key_value_heads", config.num_global_kv_heads},
      {"head_dim", config.head_dim},
      {"global_head_dim", config.global_head_dim},
      {"sliding_window", config.window},
      {"layer_types", types},
      {"attention_k_eq_v", config.k_eq_v},
      {"rope_parameters",
       {{"full_attention",
         {{"rope_type", "proportional"},
          {"partial_rotary_factor", config.rotating_part},
          {"rope_theta", 1e6}}},
        {"sliding_attention",
         {{"rope_type", "default"}, {"rope_theta", 1e4}}}}}};
  if (config.softcap > 0) json["final_logit_softcapping"] = config.softcap;
  return json.dump(2);
}

absl::StatusOr<ReferenceWeights> ReadReferenceWeights(
    const std::string& checkpoint_dir) {
  ReferenceWeights weights;
  for (const auto& entry :
       std::filesystem::directory_iterator(checkpoint_dir)) {
    if (entry.path().extension() != ".safetensors") continue;
    ASSIGN_OR_RETURN(const auto file,
                     SafetensorsFile::Open(entry.path().string()));
    for (const auto& [name, tensor] : file->tensors()) {
      std::string key = name;
      if (absl::StartsWith(key, kPrefix)) key = key.substr(sizeof(kPrefix) - 1);
      if (absl::StartsWith(key, "model.")) key = key.substr(6);
      std::vector<double>& values = weights[key];
      values.resize(tensor.data.size() / sizeof(Bf16));
      for (size_t i = 0; i < values.size(); ++i) {
        Bf16 value;
        std::memcpy(&value, tensor.data.data() + i * sizeof(value),
                    sizeof(value));
        values[i] = ToFloat(value);
      }
    }
  }
  return weights;
}

std::vector<std::vector<double>> ReferenceLogits(
    const SmallConfig& config, const ReferenceWeights& weights,
    std::span<const TokenId> tokens, std::span<const int> positions) {
  const int h = config.hidden_size;
  const std::vector<double>& embedding = weights.at("embed_tokens.weight");
  const double scale = RoundToBf16(std::sqrt(static_cast<float>(h)));
  Matrix x(static_cast<int>(tokens.size()), h);
  for (int t = 0; t < x.rows; ++t) {
    for (int i = 0; i < h; ++i) x[t][i] = embedding[tokens[t] * h + i] * scale;
  }
  for (size_t l = 0; l < config.is_global.size(); ++l) {
    RunLayer(config, Layer(weights, static_cast<int>(l)), config.is_global[l],
             x);
  }
  Normalize(x, h, &weights.at("norm.weight"));

  Matrix wanted(static_cast<int>(positions.size()), h);
  for (int i = 0; i < wanted.rows; ++i) {
    std::copy_n(x[positions[i]], h, wanted[i]);
  }
  const Matrix logits = Linear(wanted, embedding);
  std::vector<std::vector<double>> result;
  for (int i = 0; i < logits.rows; ++i) {
    result.emplace_back(logits[i], logits[i] + logits.cols);
    if (config.softcap == 0) continue;
    for (double& value : result.back()) {
      value = config.softcap * std::tanh(value / config.softcap);
    }
  }
  return result;
}

}  // namespace lapidary
