// Checkpoints for tests that run a model.

#ifndef TESTS_PARITY_TEST_CHECKPOINT_H_
#define TESTS_PARITY_TEST_CHECKPOINT_H_

#include <cstdint>
#include <string>

namespace lapidary {

// Writes the checkpoint of the config in `config_path`, with weights by rule,
// into a folder `name` of the test's temporary folder, and returns its path.  A
// failure ends the test program.
std::string WriteTestCheckpoint(const std::string& name,
                                const std::string& config_path, uint64_t seed);

}  // namespace lapidary

#endif  // TESTS_PARITY_TEST_CHECKPOINT_H_
