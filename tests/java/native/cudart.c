/* What DJL asks of the CUDA runtime before it runs mpirun: two devices, which nobody then uses. */

int cudaGetDeviceCount(int *count) {
  *count = 2;
  return 0;
}

int cudaRuntimeGetVersion(int *version) {
  *version = 12080;
  return 0;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)attribute;
  (void)device;
  *value = 8;
  return 0;
}

int cudaMemGetInfo(unsigned long *available, unsigned long *total) {
  *available = *total = 1ul << 34; /* bytes */
  return 0;
}

const char *cudaGetErrorString(int code) {
  (void)code;
  return "no error";
}
