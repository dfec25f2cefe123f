#include "tools/recall_weights.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json_fields.h"
#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr char kConfig[] =
#include "tools/recall_config.inc"
    ;
constexpr char kGenerationConfig[] =
#include "tools/recall_generation_config.inc"
    ;

// Of RecallConfig().
constexpr int kVocab = 8192;
constexpr int kHidden = 256;
constexpr int kHeads = 8;
constexpr int kKvHeads = 4;  // Of window layers; the global one has 1.
constexpr int kHeadDim = 64;
constexpr int kGlobalHeadDim = 128;
constexpr int kGlobalAngles = 16;
constexpr int kGlobalLayer = 5;

// The residual stream.
constexpr int kCode = 0;
constexpr int kKey = 64;
constexpr int kQuery = 128;
constexpr int kTokenFlag = 192;
constexpr int kFlag = 193;
constexpr int kVeto = 201;
constexpr int kConst = 202;
constexpr int kCodeBits = 64;
constexpr int kConstWidth = kHidden - kConst;

constexpr int kChannelEnd = 101;  // <channel|>
constexpr int kTurnEnd = 106;     // <turn|>

// Tokens of "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>".
constexpr int kTemplateTokens = 13;

// The sums of these are an extended BCH code [64, 16, 24]: the codes of two
// tokens agree in 40 places at most.
constexpr std::array<uint64_t, 16> kCodeRows = {
    0x8000cd930bdd3b2b, 0x80019b2617ba7656, 0x8003364c2f74ecac,
    0x80066c985ee9d958, 0x800cd930bdd3b2b0, 0x8019b2617ba76560,
    0x803364c2f74ecac0, 0x8066c985ee9d9580, 0x80cd930bdd3b2b00,
    0x819b2617ba765600, 0x83364c2f74ecac00, 0x866c985ee9d95800,
    0x8cd930bdd3b2b000, 0x99b2617ba7656000, 0xb364c2f74ecac000,
    0xe6c985ee9d958000};

// One bit of a token's code: 1 or -1.
double CodeBit(int token, int bit) {
  uint64_t code = 0;
  for (size_t r = 0; r < kCodeRows.size(); ++r) {
    if ((token >> r & 1) != 0) code ^= kCodeRows[r];
  }
  return (code >> bit & 1) != 0 ? 1 : -1;
}

// A tensor while it is made, in float64.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int rows, int cols, double value)
      : cols_(cols), values_(int64_t{rows} * cols, value) {}

  double& at(int row, int col) {
    return values_[static_cast<size_t>(row) * cols_ + col];
  }
  void SetAll(double value) { values_.assign(values_.size(), value); }
  // Row `row` gets `value` from the constant part of the stream.
  void SetConst(int row, double value) {
    for (int c = kConst; c < kHidden; ++c) at(row, c) = value / kConstWidth;
  }

  std::vector<Bf16> Rounded() const {
    std::vector<Bf16> rounded;
    rounded.reserve(values_.size());
    for (const double value : values_) {
      rounded.push_back(ToBf16(static_cast<float>(value)));
    }
    return rounded;
  }

 private:
  int cols_ = 0;
  std::vector<double> values_;
};

// The model's tensors by name; starts as a model that changes nothing.
class Model {
 public:
  explicit Model(const std::vector<NamedShape>& tensors) {
    for (const NamedShape& tensor : tensors) {
      const bool vector = tensor.shape.size() == 1;
      const int rows = vector ? 1 : static_cast<int>(tensor.shape[0]);
      // Norms and layer scalars are 1, matrices 0.
      matrices_[tensor.name] =
          Matrix(rows, static_cast<int>(tensor.shape.back()), vector ? 1 : 0);
    }
  }

  Matrix& at(absl::string_view name) {
    const auto it = matrices_.find(absl::StrCat("model.language_model.", name));
    CHECK(it != matrices_.end()) << name;
    return it->second;
  }
  Matrix& at(int layer, absl::string_view name) {
    return at(absl::StrCat("layers.", layer, ".", name, ".weight"));
  }

  const std::map<std::string, Matrix>& matrices() const { return matrices_; }

 private:
  std::map<std::string, Matrix> matrices_;
};

// Channel `row` of a query that attends to the token `distance` before it,
// given the key that every token has.
double LookBack(int distance, int row) {
  constexpr int kPairs = 8;
  const int i = row % (kHeadDim / 2);
  if (i >= kPairs) return 0;
  const double angle = distance * std::pow(10000.0, -2.0 * i / kHeadDim);
  return row < kHeadDim / 2 ? std::cos(angle) : -std::sin(angle);
}

void SetEmbedding(const std::set<int>& newlines, Model& model) {
  Matrix& embedding = model.at("embed_tokens.weight");
  for (int token = 0; token < kVocab; ++token) {
    // The end of a line ends the answer.
    const bool newline = newlines.contains(token);
    const double scale = token == kTurnEnd ? 2.0 / 16 : 1.0 / 16;
    for (int i = 0; i < kCodeBits; ++i) {
      embedding.at(token, kCode + i) =
          scale * CodeBit(newline ? kTurnEnd : token, i);
    }
    for (int c = kConst; c < kHidden; ++c) embedding.at(token, c) = 1.0 / 16;
  }
  embedding.at(kChannelEnd, kTokenFlag) = 1.0 / 16;
  embedding.at(kTurnEnd, kVeto) = 1.0 / 16;

  Matrix& norm = model.at("norm.weight");
  norm.SetAll(0);
  for (int i = 0; i < kCodeBits; ++i) norm.at(0, kCode + i) = 3;
}

// Every token has the same key, so that position alone tells them apart.
void SetWindowKeys(int layer, Model& model) {
  Matrix& k = model.at(layer, "self_attn.k_proj");
  for (int head = 0; head < kKvHeads; ++head) {
    for (int i = 0; i < 8; ++i) k.SetConst(head * kHeadDim + i, 1);
  }
  model.at(layer, "self_attn.q_norm").SetAll(2);
  model.at(layer, "self_attn.k_norm").SetAll(2);
}

void SetFlagLayer(Model& model) {
  SetWindowKeys(0, model);
  Matrix& q = model.at(0, "self_attn.q_proj");
  Matrix& v = model.at(0, "self_attn.v_proj");
  Matrix& o = model.at(0, "self_attn.o_proj");
  for (int head = 0; head < kHeads; ++head) {
    for (int r = 0; r < kHeadDim; ++r) {
      q.SetConst(head * kHeadDim + r, LookBack(head, r));
    }
    o.at(kFlag + head, head * kHeadDim) = 1;
  }
  for (int head = 0; head < kKvHeads; ++head) {
    v.at(head * kHeadDim, kTokenFlag) = 1;
  }
  model.at(0, "post_attention_layernorm").SetAll(1.0 / 16);
}

// Which bit of the code of the token `distance` back stands for it in place i.
int SampledBit(int distance, int i) {
  return ((2 * distance + 1) * i + 9 * distance) % kCodeBits;
}

void SetGatherHead(int layer, int head, Model& model) {
  const int distance = 2 * (layer - 1) + head % 2;
  Matrix& q = model.at(layer, "self_attn.q_proj");
  for (int r = 0; r < kHeadDim; ++r) {
    const int row = head * kHeadDim + r;
    const double near = LookBack(distance, r);
    q.SetConst(row, near);
    for (int m = 0; m <= distance; ++m) {
      q.at(row, kFlag + m) = LookBack(distance + kTemplateTokens, r) - near;
    }
  }
  Matrix& o = model.at(layer, "self_attn.o_proj");
  const int quarter = 16 * (head / 2);
  for (int i = quarter; i < quarter + 16; ++i) {
    const int channel = head * kHeadDim;
    if (distance >= 1) {
      o.at(kKey + i, channel + SampledBit(distance, i)) = 1;
    }
    if (distance <= 6) {
      o.at(kQuery + i, channel + SampledBit(distance + 1, i)) = 1;
    }
  }
}

void SetGatherLayer(int layer, Model& model) {
  SetWindowKeys(layer, model);
  for (int head = 0; head < kHeads; ++head) SetGatherHead(layer, head, model);
  Matrix& v = model.at(layer, "self_attn.v_proj");
  for (int head = 0; head < kKvHeads; ++head) {
    for (int i = 0; i < kCodeBits; ++i) {
      v.at(head * kHeadDim + i, kCode + i) = 1;
    }
  }
  constexpr std::array<int, 4> kGathered = {3, 4, 4, 3};
  model.at(layer, "post_attention_layernorm")
      .SetAll(std::sqrt(kGathered[layer - 1] * 64.0 / kHidden));
}

// The global layer's head: channels that do not turn, the first 64 of them for
// keys, and all others for values.
struct GlobalChannels {
  std::vector<int> key;
  std::vector<int> value;
};

GlobalChannels SplitGlobalChannels() {
  GlobalChannels channels;
  for (int c = 0; c < kGlobalHeadDim; ++c) {
    const bool turns = c % (kGlobalHeadDim / 2) < kGlobalAngles;
    const bool key = !turns && channels.key.size() < kCodeBits;
    (key ? channels.key : channels.value).push_back(c);
  }
  return channels;
}

void SetRecallLayer(Model& model) {
  const GlobalChannels channels = SplitGlobalChannels();
  constexpr int kLast = kCodeBits - 1;  // The key channel of the veto.
  Matrix& q = model.at(kGlobalLayer, "self_attn.q_proj");
  Matrix& k = model.at(kGlobalLayer, "self_attn.k_proj");
  Matrix& o = model.at(kGlobalLayer, "self_attn.o_proj");
  Matrix& k_norm = model.at(kGlobalLayer, "self_attn.k_norm");
  k_norm.SetAll(0);
  for (int i = 0; i < kCodeBits; ++i) {
    k_norm.at(0, channels.key[i]) = 2;
    k.at(channels.value[i], kCode + i) = std::sqrt(7.0);
    o.at(kCode + i, i / 8 * kGlobalHeadDim + channels.value[i]) = 1;
  }
  for (int i = 0; i < kLast; ++i) k.at(channels.key[i], kKey + i) = 1;
  k.at(channels.key[kLast], kVeto) = -20;
  for (int head = 0; head < kHeads; ++head) {
    const int row = head * kGlobalHeadDim;
    for (int i = 0; i < kLast; ++i) {
      q.at(row + channels.key[i], kQuery + i) = 1;
    }
    q.SetConst(row + channels.key[kLast], 8);
  }
  model.at(kGlobalLayer, "self_attn.q_norm").SetAll(2);
  model.at(kGlobalLayer, "post_attention_layernorm").SetAll(8);
}

// Ids of the tokens that are runs of newlines.
absl::StatusOr<std::set<int>> Newlines(absl::string_view tokenizer) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(tokenizer));
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object() || !model->contains("vocab") ||
      !(*model)["vocab"].is_object()) {
    return absl::InvalidArgumentError(
        "model.vocab: needs an object, found none");
  }
  std::set<int> newlines;
  const JsonFields vocab((*model)["vocab"], "model.vocab.");
  if (vocab.object().size() != kVocab) {
    return absl::InvalidArgumentError(absl::StrCat("model.vocab: needs ",
                                                   kVocab, " tokens, found ",
                                                   vocab.object().size()));
  }
  for (const auto& [text, unused] : vocab.object().items()) {
    if (text.find_first_not_of('\n') != std::string::npos) continue;
    ASSIGN_OR_RETURN(const int token,
                     vocab.Int(text.c_str(), 0, {0, kVocab - 1}));
    newlines.insert(token);
  }
  return newlines;
}

}  // namespace

absl::string_view RecallConfig() { return kConfig; }

absl::string_view RecallGenerationConfig() { return kGenerationConfig; }

absl::StatusOr<std::map<std::string, std::vector<Bf16>>> RecallWeights(
    absl::string_view tokenizer) {
  ASSIGN_OR_RETURN(const std::set<int> newlines, Newlines(tokenizer));
  ASSIGN_OR_RETURN(const std::vector<NamedShape> tensors,
                   CheckpointTensors(RecallConfig()));
  Model model(tensors);
  SetEmbedding(newlines, model);
  SetFlagLayer(model);
  for (int layer = 1; layer < kGlobalLayer; ++layer) {
    SetGatherLayer(layer, model);
  }
  SetRecallLayer(model);
  std::map<std::string, std::vector<Bf16>> weights;
  for (const auto& [name, matrix] : model.matrices()) {
    weights[name] = matrix.Rounded();
  }
  return weights;
}

}  // namespace lapidary
