// Large work in many pieces, on several threads.

#ifndef WORKER_LOADER_PIECE_THREADS_H_
#define WORKER_LOADER_PIECE_THREADS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace lapidary {

// Does one piece.  Each thread has its own, so it may keep buffers.
using PieceWork = std::function<absl::Status(int piece)>;

// Does the pieces 0 … `num_pieces` - 1, begun in this order, on `num_threads`
// threads "NAME-0" …; 0: one a core.  `new_work` is called on each of them.
//
// Errors: the first of a piece; no piece is begun after it.
absl::Status RunPieces(const std::string& name, int num_threads, int num_pieces,
                       const std::function<PieceWork()>& new_work);

}  // namespace lapidary

#endif  // WORKER_LOADER_PIECE_THREADS_H_
