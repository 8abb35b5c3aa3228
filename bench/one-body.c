/* For bench/federation.sh: lets a thousand hollow shards be in memory at once.
 *
 * `sotto-bench federation hollow` makes shard files that are a header, a hole and hints. Reading a
 * hole fills a page of the page cache with zeros, for each file anew, and a thousand shards of
 * 345 MB are more than this machine's memory. Preloaded into `sotto serve`, this maps header and
 * hints of such a file as ever, and in place of the hole the pages of one file of zeros
 * (SOTTO_BODY, of the same size, with every block written): the same bytes, in memory once. The
 * server reads them from memory for each query, as they are more than its caches hold. Everything
 * else is as it was.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bytes of a shard's header, which is not shared. */
#define HEADER 4096

static void *map_pages(void *at, size_t bytes, int access, int flags, int file, off_t from)
{
    return (void *)syscall(SYS_mmap, at, bytes, access, flags, file, from);
}

/* Where the hole behind the header ends; 0 where there is none. */
static off_t end_of_hole(int file, size_t bytes)
{
    struct stat it;
    if (fstat(file, &it) != 0 || (size_t)it.st_size != bytes
        || (size_t)it.st_blocks * 512 > bytes / 2)
        return 0;
    off_t end = lseek(file, HEADER, SEEK_DATA);
    return end > HEADER ? end : 0;
}

void *mmap(void *at, size_t bytes, int access, int flags, int file, off_t from)
{
    char *map = map_pages(at, bytes, access, flags, file, from);
    const char *path = getenv("SOTTO_BODY");
    if (map == MAP_FAILED || path == NULL || file < 0 || from != 0 || access != PROT_READ)
        return map;
    off_t end = end_of_hole(file, bytes);
    if (end == 0)
        return map;
    int zeros = open(path, O_RDONLY | O_CLOEXEC);
    if (zeros < 0
        || map_pages(map + HEADER, end - HEADER, access, flags | MAP_FIXED, zeros, HEADER)
            != map + HEADER)
        abort();
    close(zeros);
    return map;
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));
