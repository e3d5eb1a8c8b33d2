//! GF(2^8): tables, matrices and kernels per CPU.
