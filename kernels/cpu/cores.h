// How many cores there are to compute on.

#ifndef KERNELS_CPU_CORES_H_
#define KERNELS_CPU_CORES_H_

namespace lapidary {

// Cores that the process may use, at least 1.
int AvailableCores();

}  // namespace lapidary

#endif  // KERNELS_CPU_CORES_H_
