// Tells whether two ranks have the same weights.

#ifndef WORKER_WEIGHTS_DIGEST_H_
#define WORKER_WEIGHTS_DIGEST_H_

#include <string>

#include "worker/model/gemma_weights.h"

namespace lapidary {

// 32 hexadecimal digits, of samples of every matrix and norm: unlike a
// checkpoint's digest, of what the ranks compute with, wherever and whenever it
// was written.  Reads a few pages of each matrix.
std::string DigestOfWeights(const GemmaWeights& weights, int hidden_size);

}  // namespace lapidary

#endif  // WORKER_WEIGHTS_DIGEST_H_
