/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/holders.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VFIO_DEVICE "anon_inode:[vfio-device]"

static bool has_open(pid_t pid)
{
    char path[64], target[64];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    if (!directory)
        return false;
    for (struct dirent *entry = readdir(directory); entry && !found; entry = readdir(directory)) {
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
        found = n == (ssize_t)strlen(VFIO_DEVICE) && memcmp(target, VFIO_DEVICE, (size_t)n) == 0;
    }
    closedir(directory);
    return found;
}

static bool has_mapped(pid_t pid)
{
    char path[64], line[512];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return false;
    while (!found && fgets(line, sizeof(line), maps))
        found = strstr(line, VFIO_DEVICE) != NULL;
    fclose(maps);
    return found;
}

static void name_of(pid_t pid, char *name, size_t bytes)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(name, (int)bytes, file))
        snprintf(name, bytes, "?");
    if (file)
        fclose(file);
    name[strcspn(name, "\n")] = '\0';
}

unsigned holders_find(char *text, size_t bytes)
{
    DIR *directory = opendir("/proc");
    unsigned count = 0;
    size_t used = 0;

    text[0] = '\0';
    if (!directory)
        return 0;
    for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        char name[32];
        if (pid <= 0 || pid == getpid() || (!has_open(pid) && !has_mapped(pid)))
            continue;
        name_of(pid, name, sizeof(name));
        int n = snprintf(text + used, bytes - used, "%spid %d (%s)", count ? ", " : "", (int)pid,
                         name);
        used = n > 0 && used + (size_t)n < bytes ? used + (size_t)n : bytes - 1;
        count++;
    }
    closedir(directory);
    return count;
}
