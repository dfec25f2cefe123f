#include "router/rpc/served_model.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/fakes/model_directory.h"

namespace lapidary {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string FileText(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ServedModelTest, ReadsADirectory) {
  const ModelDirectory directory;
  const auto model = ServedModel::Load(directory.path() + "/");
  ASSERT_OK(model);
  EXPECT_EQ((*model)->name, std::filesystem::path(directory.path()).filename());
  EXPECT_EQ((*model)->model_type, "gemma4_unified");
  EXPECT_EQ((*model)->vocab_size, 8192);
  EXPECT_EQ((*model)->max_context_tokens, 262144);
  // The longest token is 31 spaces, of which each may be written as "▁".
  EXPECT_EQ((*model)->max_prompt_bytes, int64_t{262144} * 93);
  EXPECT_EQ((*model)->template_variant, TemplateVariant::kLarge);
  EXPECT_THAT((*model)->template_warning, IsEmpty());
  EXPECT_THAT((*model)->stop_tokens, Contains(106));
}

TEST(ServedModelTest, TakesDefaultsFromGenerationConfig) {
  const ModelDirectory directory;
  directory.Write("generation_config.json",
                  FileText("tests/testdata/models/unified_mini/"
                           "generation_config.json"));
  const auto model = ServedModel::Load(directory.path());
  ASSERT_OK(model);
  EXPECT_EQ((*model)->default_sampling.top_k(), 64u);
  EXPECT_FLOAT_EQ((*model)->default_sampling.top_p(), 0.95f);
  EXPECT_EQ((*model)->default_sampling.min_p(), 0);
  EXPECT_THAT((*model)->suppressed_tokens,
              ::testing::UnorderedElementsAre(8190, 8189));
}

TEST(ServedModelTest, ReportsATemplateThatIsNotTheFamilys) {
  const ModelDirectory directory;
  directory.Write("chat_template.jinja",
                  FileText("tests/testdata/chat_template/large.jinja"));
  EXPECT_THAT(ServedModel::Load(directory.path()).value()->template_warning,
              IsEmpty());
  directory.Write("chat_template.jinja",
                  FileText("tests/testdata/chat_template/small.jinja"));
  EXPECT_THAT(ServedModel::Load(directory.path()).value()->template_warning,
              HasSubstr("another model size"));
  directory.Write("chat_template.jinja", "{{ mine }}");
  EXPECT_THAT(ServedModel::Load(directory.path()).value()->template_warning,
              HasSubstr("neither of the published ones"));
}

TEST(ServedModelTest, NamesTheFileThatIsMissingOrWrong) {
  EXPECT_THAT(
      ServedModel::Load("/nowhere"),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/config.json")));
  const ModelDirectory directory;
  directory.Write("config.json", "{\"model_type\": \"llama\"}");
  EXPECT_THAT(ServedModel::Load(directory.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("config.json: model_type: needs a model of "
                                 "the gemma4 family")));
}

TEST(ServedModelTest, RefusesATokenizerLargerThanTheVocabulary) {
  const ModelDirectory directory;
  directory.Write("config.json",
                  "{\"model_type\": \"gemma4_unified\", "
                  "\"text_config\": {\"vocab_size\": 4096}}");
  EXPECT_THAT(ServedModel::Load(directory.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("8192 tokens, more than vocab_size 4096")));
}

TEST(ServedModelTest, ModelsWithPerLayerEmbeddingsHaveTheSmallTemplate) {
  const ModelDirectory directory;
  directory.Write("config.json",
                  "{\"model_type\": \"gemma4\", \"text_config\": "
                  "{\"vocab_size\": 8192}}");
  EXPECT_EQ(ServedModel::Load(directory.path()).value()->template_variant,
            TemplateVariant::kSmall);
  directory.Write(
      "config.json",
      "{\"model_type\": \"gemma4\", \"text_config\": "
      "{\"vocab_size\": 8192, \"hidden_size_per_layer_input\": 0}}");
  EXPECT_EQ(ServedModel::Load(directory.path()).value()->template_variant,
            TemplateVariant::kLarge);
}

}  // namespace
}  // namespace lapidary
