#include "worker/model/gemma_config.h"

#include <functional>
#include <string>

#include "common/read_file.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

json Stored(const std::string& model) {
  const absl::StatusOr<std::string> text =
      ReadFile("tests/testdata/" + model + "/config.json");
  EXPECT_OK(text);
  return json::parse(text.value_or("{}"));
}

absl::StatusOr<GemmaConfig> Parse(const json& config) {
  return ParseGemmaConfig(config.dump());
}

// The config of unified_mini or unified_wide after `change` to its text part.
absl::StatusOr<GemmaConfig> Mini(const std::function<void(json&)>& change) {
  json config = Stored("models/unified_mini");
  change(config["text_config"]);
  return Parse(config);
}

absl::StatusOr<GemmaConfig> Wide(const std::function<void(json&)>& change) {
  json config = Stored("models/unified_wide");
  change(config["text_config"]);
  return Parse(config);
}

TEST(GemmaConfigTest, ReadsPerLayerConfig) {
  const absl::StatusOr<GemmaConfig> config =
      Parse(Stored("models/unified_mini"));
  ASSERT_OK(config);
  EXPECT_EQ(config->vocab_size, 8192);
  EXPECT_EQ(config->hidden_size, 192);
  EXPECT_EQ(config->intermediate_size, 512);
  EXPECT_EQ(config->num_heads, 8);
  EXPECT_EQ(config->window, 64);
  EXPECT_EQ(config->max_context_tokens, 262144);
  EXPECT_EQ(config->logit_softcap, 30.0f);
  EXPECT_EQ(config->rms_norm_epsilon, 1e-6f);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1, 106, 50));
  EXPECT_THAT(config->soft_token_ids, ElementsAre(8187, 8188, 8191));
  EXPECT_EQ(config->pad_token_id, 0);
  ASSERT_EQ(config->num_layers(), 12);
  const LayerConfig& window = config->layers[4];
  EXPECT_EQ(window.type, LayerType::kWindow);
  EXPECT_EQ(window.head_dim, 32);
  EXPECT_EQ(window.num_kv_heads, 4);
  EXPECT_EQ(window.key_half, 16);
  EXPECT_FALSE(window.k_eq_v);
  for (const int i : {5, 11}) {
    const LayerConfig& global = config->layers[i];
    EXPECT_EQ(global.type, LayerType::kGlobal);
    EXPECT_EQ(global.head_dim, 64);
    EXPECT_EQ(global.num_kv_heads, 1);
    EXPECT_EQ(global.key_half, 8);
    EXPECT_TRUE(global.k_eq_v);
  }
}

TEST(GemmaConfigTest, ReadsLegacyKeys) {
  const absl::StatusOr<GemmaConfig> config =
      Parse(Stored("models/unified_wide"));
  ASSERT_OK(config);
  EXPECT_EQ(config->window, 1024);
  EXPECT_EQ(config->embed_scale, 16.0f);
  EXPECT_EQ(config->layers[5].head_dim, 512);
  EXPECT_EQ(config->layers[5].num_kv_heads, 1);
  EXPECT_EQ(config->layers[5].key_half, 64);
  EXPECT_EQ(config->layers[0].head_dim, 256);
}

TEST(GemmaConfigTest, ReadsTheRecallModel) {
  const absl::StatusOr<GemmaConfig> config = Parse(Stored("recall"));
  ASSERT_OK(config);
  EXPECT_EQ(config->layers[5].head_dim, 128);
  EXPECT_EQ(config->layers[5].key_half, 16);
}

TEST(GemmaConfigTest, ReadsAFlatTextConfig) {
  const absl::StatusOr<GemmaConfig> config =
      Parse(Stored("models/unified_mini")["text_config"]);
  ASSERT_OK(config);
  EXPECT_EQ(config->model_type, "gemma4_unified_text");
  EXPECT_EQ(config->hidden_size, 192);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1));
  EXPECT_TRUE(config->soft_token_ids.empty());
}

TEST(GemmaConfigTest, MissingKeysMeanTheFamilysDefaults) {
  const auto config = ParseGemmaConfig(R"({"model_type":
      "gemma4_unified_text"})");
  ASSERT_OK(config);
  EXPECT_EQ(config->vocab_size, 262144);
  EXPECT_EQ(config->hidden_size, 2304);
  EXPECT_EQ(config->num_layers(), 30);
  EXPECT_EQ(config->window, 1024);
  EXPECT_EQ(config->logit_softcap, 0.0f);
  EXPECT_EQ(config->layers[5].type, LayerType::kGlobal);
  EXPECT_EQ(config->layers[5].head_dim, 512);
  EXPECT_EQ(config->layers[5].num_kv_heads, 4);
  EXPECT_FALSE(config->layers[5].k_eq_v);
  EXPECT_EQ(config->layers[5].key_half, 256);
}

TEST(GemmaConfigTest, PerLayerConfigWinsOverLegacyKeys) {
  const auto config = Mini([](json& text) {
    text["global_head_dim"] = 512;
    text["num_global_key_value_heads"] = 2;
  });
  ASSERT_OK(config);
  EXPECT_EQ(config->layers[5].head_dim, 64);
  EXPECT_EQ(config->layers[5].num_kv_heads, 1);
}

TEST(GemmaConfigTest, TheLastLayerIsGlobal) {
  const auto config = Wide([](json& text) {
    text["num_hidden_layers"] = 2;
    text["layer_types"] = {"sliding_attention", "sliding_attention"};
  });
  ASSERT_OK(config);
  EXPECT_EQ(config->layers[1].type, LayerType::kGlobal);
  EXPECT_EQ(config->layers[1].head_dim, 512);
}

TEST(GemmaConfigTest, WithoutKEqVGlobalLayersHaveWholeKeys) {
  const auto config =
      Wide([](json& text) { text["attention_k_eq_v"] = false; });
  ASSERT_OK(config);
  EXPECT_FALSE(config->layers[5].k_eq_v);
  EXPECT_EQ(config->layers[5].key_half, 256);
  // The legacy key counts with attention_k_eq_v only.
  EXPECT_EQ(config->layers[5].num_kv_heads, 4);
  EXPECT_EQ(config->global_rope.inverse_frequencies.size(), 64u);
}

TEST(GemmaConfigTest, AnglesEqualTheReference) {
  const auto config = Parse(Stored("models/unified_wide"));
  ASSERT_OK(config);
  const std::vector<float>& global = config->global_rope.inverse_frequencies;
  ASSERT_EQ(global.size(), 64u);
  EXPECT_EQ(global[0], 1.0f);
  EXPECT_FLOAT_EQ(global[1], 0.94746353f);
  EXPECT_FLOAT_EQ(global[2], 0.89768713f);
  EXPECT_FLOAT_EQ(global[63], 0.03337625f);
  const std::vector<float>& window = config->window_rope.inverse_frequencies;
  ASSERT_EQ(window.size(), 128u);
  EXPECT_FLOAT_EQ(window[64], 0.01f);
}

TEST(GemmaConfigTest, FactorDividesAngles) {
  const auto config = Wide([](json& text) {
    text["rope_parameters"]["full_attention"]["factor"] = 8.0;
  });
  ASSERT_OK(config);
  EXPECT_EQ(config->global_rope.inverse_frequencies[0], 0.125f);
}

TEST(GemmaConfigTest, EmbeddingScaleIsRoundedToBf16) {
  for (const auto& [hidden, scale] :
       {std::pair(1536, 39.25f), std::pair(2560, 50.5f), std::pair(3840, 62.0f),
        std::pair(5376, 73.5f)}) {
    const auto config = Wide([&](json& text) { text["hidden_size"] = hidden; });
    ASSERT_OK(config);
    EXPECT_EQ(config->embed_scale, scale);
  }
}

TEST(GemmaConfigTest, TakesOtherSizes) {
  for (const int window : {1, 96, 100, 512, 1023}) {
    const auto config =
        Mini([&](json& text) { text["sliding_window"] = window; });
    ASSERT_OK(config);
    EXPECT_EQ(config->window, window);
  }
  EXPECT_OK(Mini([](json& text) {
    text["num_attention_heads"] = 12;
    text["vocab_size"] = 4112;
    text["hidden_size"] = 208;
  }));
}

TEST(GemmaConfigTest, RefusesOtherFamilies) {
  json config = Stored("models/unified_mini");
  for (const char* type :
       {"gemma4", "gemma4_text", "gemma4_assistant", "llama"}) {
    config["model_type"] = type;
    EXPECT_THAT(Parse(config),
                StatusIs(kUnimplemented,
                         AllOf(HasSubstr("model_type"), HasSubstr(type))));
  }
  config.erase("model_type");
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("model_type")));
}

TEST(GemmaConfigTest, RefusesWhatTheModelDoesNotHaveYet) {
  const auto expect = [](const char* key, const json& value) {
    EXPECT_THAT(Mini([&](json& text) { text[key] = value; }),
                StatusIs(kUnimplemented,
                         HasSubstr(std::string("text_config.") + key + ":")));
  };
  expect("num_kv_shared_layers", 2);
  expect("hidden_size_per_layer_input", 256);
  expect("enable_moe_block", true);
  expect("attention_bias", true);
  expect("hidden_activation", "silu");
  expect("use_bidirectional_attention", "all");
}

TEST(GemmaConfigTest, RefusesSizesThatAreNoMultiplesOf16) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size"}) {
    EXPECT_THAT(Mini([&](json& text) { text[key] = 200; }),
                StatusIs(kInvalid, AllOf(HasSubstr(key),
                                         HasSubstr("a multiple of 16, got "
                                                   "200"))));
  }
  EXPECT_THAT(
      Mini([](json& text) { text["head_dim"] = 24; }),
      StatusIs(kInvalid, AllOf(HasSubstr("head_dim"), HasSubstr("got 24"))));
}

TEST(GemmaConfigTest, RefusesHeadsThatDoNotDivide) {
  EXPECT_THAT(Mini([](json& text) { text["num_key_value_heads"] = 3; }),
              StatusIs(kInvalid, AllOf(HasSubstr("num_key_value_heads"),
                                       HasSubstr("(8), got 3"))));
}

TEST(GemmaConfigTest, RefusesContradictions) {
  EXPECT_THAT(Mini([](json& text) { text["num_hidden_layers"] = 11; }),
              StatusIs(kInvalid,
                       AllOf(HasSubstr("layer_types"), HasSubstr("11 entries"),
                             HasSubstr("got 12 entries"))));
  EXPECT_THAT(Mini([](json& text) {
                text["per_layer_config"]["12"] = {{"head_dim", 64}};
              }),
              StatusIs(kInvalid, HasSubstr("per_layer_config.12: needs a "
                                           "layer from 0 to 11")));
  EXPECT_THAT(Mini([](json& text) {
                text["per_layer_config"]["5"] = {{"head_dim", 32}};
              }),
              StatusIs(kInvalid, HasSubstr("one entry a layer")));
  EXPECT_THAT(Mini([](json& text) {
                text["per_layer_config"]["x"] = {{"head_dim", 32}};
              }),
              StatusIs(kInvalid, HasSubstr("per_layer_config.x")));
  EXPECT_THAT(Mini([](json& text) {
                text["per_layer_config"]["11"]["head_dim"] = 128;
              }),
              StatusIs(kUnimplemented, HasSubstr("head_dim of layer 11")));
  EXPECT_THAT(Mini([](json& text) {
                text["per_layer_config"]["11"]["sliding_window"] = 8;
              }),
              StatusIs(kUnimplemented,
                       HasSubstr("per_layer_config.11.sliding_window")));
}

TEST(GemmaConfigTest, RefusesWrongTypes) {
  const auto expect = [](const char* key, const json& value) {
    EXPECT_THAT(
        Mini([&](json& text) { text[key] = value; }),
        StatusIs(kInvalid, AllOf(HasSubstr(std::string("text_config.") + key),
                                 HasSubstr("needs"), HasSubstr("got"))))
        << key << " " << value;
  };
  expect("hidden_size", "192");
  expect("hidden_size", -192);
  expect("hidden_size", 192.0);
  expect("hidden_size", nullptr);
  expect("hidden_size", 1'000'000'000);
  expect("num_hidden_layers", 0);
  expect("num_hidden_layers", 1'000'000'000);
  expect("sliding_window", 0);
  expect("layer_types", "sliding_attention");
  expect("layer_types", json::array({1, 2}));
  expect("per_layer_config", json::array());
  expect("attention_k_eq_v", 1);
  expect("rms_norm_eps", 0);
  expect("rms_norm_eps", "small");
  expect("final_logit_softcapping", -30);
  expect("rope_parameters", 10000);
  expect("use_bidirectional_attention", 5);
}

TEST(GemmaConfigTest, RefusesUnknownRopes) {
  const auto with = [](const char* key, const json& value) {
    return Mini([&](json& text) {
      text["rope_parameters"]["full_attention"][key] = value;
    });
  };
  EXPECT_THAT(
      with("rope_type", "yarn"),
      StatusIs(kUnimplemented, HasSubstr("full_attention.rope_type: needs")));
  EXPECT_THAT(with("rope_theta", 0), StatusIs(kInvalid));
  EXPECT_THAT(with("partial_rotary_factor", 1.5), StatusIs(kInvalid));
  EXPECT_THAT(with("partial_rotary_factor", 0.001), StatusIs(kInvalid));
  EXPECT_THAT(with("factor", -1), StatusIs(kInvalid));
}

TEST(GemmaConfigTest, NeedsTextConfig) {
  json config = Stored("models/unified_mini");
  config.erase("text_config");
  EXPECT_THAT(Parse(config),
              StatusIs(kInvalid, "text_config: needs an object, got nothing"));
}

TEST(GemmaConfigTest, RefusesEndTokensBeyondTheVocabulary) {
  json config = Stored("models/unified_mini");
  config["eos_token_id"] = {1, 8192};
  EXPECT_THAT(Parse(config), StatusIs(kInvalid, HasSubstr("eos_token_id")));
}

TEST(GemmaConfigTest, RefusesWhatIsNotJson) {
  EXPECT_THAT(ParseGemmaConfig(""), StatusIs(kInvalid));
  EXPECT_THAT(ParseGemmaConfig("{\"model_type\": "), StatusIs(kInvalid));
  EXPECT_THAT(ParseGemmaConfig("[]"), StatusIs(kInvalid));
}

}  // namespace
}  // namespace lapidary
