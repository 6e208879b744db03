/* Between the gateway and the system's resolver: one name leads where a file says, with each question to the file's next
 * line, and at last to its last. RESOLVER_NAME is the name, RESOLVER_SAYS the file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*resolve)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* The first line of the file, which is taken out of it unless it is the last. */
static int next(const char *says, char *line, int room) {
    char rest[4096];
    FILE *file = fopen(says, "r");
    if (!file) return -1;
    int read = fgets(line, room, file) != NULL;
    size_t left = fread(rest, 1, sizeof rest, file);
    fclose(file);
    if (!read) return -1;
    line[strcspn(line, "\n")] = 0;
    if (left > 0) {
        file = fopen(says, "w");
        if (!file) return -1;
        fwrite(rest, 1, left, file);
        fclose(file);
    }
    return 0;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    resolve real;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    const char *name = getenv("RESOLVER_NAME"), *says = getenv("RESOLVER_SAYS");
    char line[256];
    if (!node || !name || !says || strcmp(node, name) != 0) return real(node, service, hints, found);
    pthread_mutex_lock(&turn);
    int failed = next(says, line, sizeof line);
    pthread_mutex_unlock(&turn);
    return failed ? EAI_NONAME : real(line, service, hints, found);
}
