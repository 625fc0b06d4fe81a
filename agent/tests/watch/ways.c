/* A way to write, a file and another one in; the first, written that way by a process that ends at once, out.
 *
 * What a safe language does not let a test do: stores into a mapping, and a ring of requests that the kernel carries out
 * by itself. And what it starts too slowly: built without libraries, this opens, writes and is gone. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char text[] = "written\n";
enum { LENGTH = sizeof text - 1, ENTRIES = 4 };

static int must(const char *what, long result) {
    if (result < 0) err(1, "%s", what);
    return (int)result;
}

static int opened(const char *path, int flags) { return must(path, open(path, flags | O_CLOEXEC, 0644)); }

/* One request, and its result when the kernel's own thread has carried it out. */
static int carried_out(int ring, const struct io_uring_params *as, char *requests, char *results,
                       struct io_uring_sqe request) {
    struct io_uring_sqe *entries = mmap(NULL, as->sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (entries == MAP_FAILED) err(1, "map the requests");
    _Atomic unsigned *tail = (_Atomic unsigned *)(requests + as->sq_off.tail);
    unsigned at = *tail & (as->sq_entries - 1);
    request.flags |= IOSQE_ASYNC;
    entries[at] = request;
    ((unsigned *)(requests + as->sq_off.array))[at] = at;
    atomic_store(tail, *tail + 1);
    must("io_uring_enter", syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
    _Atomic unsigned *head = (_Atomic unsigned *)(results + as->cq_off.head);
    struct io_uring_cqe *done = (struct io_uring_cqe *)(results + as->cq_off.cqes);
    int result = done[*head & (as->cq_entries - 1)].res;
    atomic_store(head, *head + 1);
    munmap(entries, as->sq_entries * sizeof *entries);
    if (result < 0) errx(1, "a request: %s", strerror(-result));
    return result;
}

/* Opened, written and closed by requests: no system call of this process names the file. */
static void by_ring(const char *path) {
    struct io_uring_params as = {0};
    int ring = must("io_uring_setup", syscall(SYS_io_uring_setup, ENTRIES, &as));
    size_t of_requests = as.sq_off.array + as.sq_entries * sizeof(unsigned);
    size_t of_results = as.cq_off.cqes + as.cq_entries * sizeof(struct io_uring_cqe);
    char *requests = mmap(NULL, of_requests, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    char *results = mmap(NULL, of_results, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    if (requests == MAP_FAILED || results == MAP_FAILED) err(1, "map the ring");
    struct io_uring_sqe open_it = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (unsigned long)path,
                                   .open_flags = O_WRONLY};
    int file = carried_out(ring, &as, requests, results, open_it);
    struct io_uring_sqe write_it = {.opcode = IORING_OP_WRITE, .fd = file, .addr = (unsigned long)text, .len = LENGTH};
    carried_out(ring, &as, requests, results, write_it);
    struct io_uring_sqe close_it = {.opcode = IORING_OP_CLOSE, .fd = file};
    carried_out(ring, &as, requests, results, close_it);
}

/* The descriptor is closed before or after the store: the mapping is what holds the file. */
static void by_mapping(const char *path, int closes_first) {
    int file = opened(path, O_RDWR);
    char *mapped = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) err(1, "map %s", path);
    if (closes_first) close(file);
    memcpy(mapped, text, LENGTH);
    munmap(mapped, LENGTH);
    if (!closes_first) close(file);
}

/* It stays mapped until somebody ends it. */
static void mapped(const char *path) {
    int file = opened(path, O_RDWR);
    char *at = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) err(1, "map %s", path);
    close(file);
    memcpy(at, text, LENGTH);
    pause();
}

/* Runs what is in a file, from memory that no file system has. */
static void from_memory(const char *path) {
    int memory = must("memfd_create", memfd_create("nowhere", MFD_CLOEXEC));
    int program = opened(path, O_RDONLY);
    while (must("copy", sendfile(memory, program, NULL, 1 << 20)) > 0) continue;
    fexecve(memory, (char *[]){"nowhere", NULL}, (char *[]){NULL});
    err(1, "run it");
}

/* Whoever opened it has ended when its child writes; which one that was is said. */
static void by_heir(const char *path) {
    int file = opened(path, O_WRONLY), ends[2];
    must("pipe", pipe(ends));
    int heir = must("fork", fork());
    if (heir != 0) {
        printf("%d\n", heir);
        return;
    }
    close(ends[1]);
    /* Its end says that nobody else has the pipe. */
    must("wait", read(ends[0], &(char){0}, 1));
    must("write", write(file, text, LENGTH));
    close(file);
    /* It was started as no program of its own, so that it is known by what it is alone. */
    must("wait", read(STDIN_FILENO, &(char){0}, 1));
}

int main(int count, char **words) {
    if (count != 4) errx(2, "a way, a file and another one, please");
    const char *way = words[1], *path = words[2], *from = words[3];
    if (!strcmp(way, "write"))
        must("write", write(opened(path, O_WRONLY), text, LENGTH));
    else if (!strcmp(way, "io_uring"))
        by_ring(path);
    else if (!strcmp(way, "mmap"))
        by_mapping(path, 0);
    else if (!strcmp(way, "mmap-closed"))
        by_mapping(path, 1);
    else if (!strcmp(way, "mapped"))
        mapped(path);
    else if (!strcmp(way, "memfd"))
        from_memory(path);
    else if (!strcmp(way, "heir"))
        by_heir(path);
    else if (!strcmp(way, "copy_file_range"))
        must(way, copy_file_range(opened(from, O_RDONLY), NULL, opened(path, O_WRONLY), NULL, LENGTH, 0));
    else if (!strcmp(way, "sendfile"))
        must(way, sendfile(opened(path, O_WRONLY), opened(from, O_RDONLY), NULL, LENGTH));
    else if (!strcmp(way, "fallocate"))
        must(way, fallocate(opened(path, O_WRONLY), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LENGTH));
    else
        errx(2, "no such way: %s", way);
    return 0;
}
