/* Opens each file, writes and is gone: a process that nobody has time to look at. */
#include <fcntl.h>
#include <unistd.h>

int main(int count, char **files) {
    for (int nth = 1; nth < count; nth++) {
        int file = open(files[nth], O_WRONLY | O_TRUNC);
        if (file < 0 || write(file, "written\n", 8) != 8 || close(file) < 0) return 1;
    }
    return 0;
}
