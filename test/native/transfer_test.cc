// Transfer: what is written comes back, also when the object goes while a write is under way; errors are numbers.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../native/io/transfer.h"
#include "temporary_directory.h"

using namespace layerstream;

namespace {

constexpr uint64_t kBytes = 3 << 20;

void check(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "transfer_test: %s\n", what);
  exit(1);
}

}  // namespace

int main() {
  const TemporaryDirectory directory;
  const int file = open(directory.file("data").c_str(), O_RDWR | O_CREAT, 0600);
  {
    Transfer transfer(2, kBytes);
    std::memset(transfer.buffer(0), 7, kBytes);
    transfer.start({true, file, transfer.buffer(0), kBytes, 4096});
    check(transfer.busy(), "a transfer is under way");
    check(transfer.finish() == int64_t{kBytes} && !transfer.busy(), "a write is complete");
    transfer.start({false, file, transfer.buffer(1) + 1, kBytes - 1, 4096});
    check(transfer.finish() == int64_t{kBytes} - 1, "a read is complete");
    check(std::memcmp(transfer.buffer(0), transfer.buffer(1) + 1, kBytes - 1) == 0, "what was written is read");
    check(transfer.buffer(1)[0] == 0, "the byte before is left alone");
    transfer.start({false, file, transfer.buffer(1), kBytes, kBytes});
    check(transfer.finish() == 4096, "the end of the file shortens a read");
    transfer.start({false, -1, transfer.buffer(1), kBytes, 0});
    check(transfer.finish() == -EBADF, "an error is a negative number");
    transfer.start({true, file, transfer.buffer(0), kBytes, 0});
  }
  check(lseek(file, 0, SEEK_END) == off_t{kBytes} + 4096, "the write under way was completed");
  uint8_t first = 0;
  check(pread(file, &first, 1, 0) == 1 && first == 7, "with its bytes");
  close(file);
  printf("transfer_test: passed\n");
  return 0;
}
