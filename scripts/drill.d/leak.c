/* A memory leak for `make drill`, loaded into a process with LD_PRELOAD. While the file LINNET_DRILL_LEAK exists, it
   allocates and touches LINNET_DRILL_LEAK_STEP bytes four times a second, until LINNET_DRILL_LEAK_MAX bytes are lost. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *leak(void *unused) {
    (void)unused;
    const char *file = getenv("LINNET_DRILL_LEAK"), *step = getenv("LINNET_DRILL_LEAK_STEP"), *max = getenv("LINNET_DRILL_LEAK_MAX");
    if (file == NULL || step == NULL || max == NULL) return NULL;
    size_t size = strtoull(step, NULL, 10), limit = strtoull(max, NULL, 10);
    for (size_t lost = 0; size > 0 && lost + size <= limit; usleep(250000)) {
        if (access(file, F_OK) != 0) continue;
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) continue;
        memset(memory, 1, size);
        lost += size;
    }
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, leak, NULL) == 0) pthread_detach(thread);
}
