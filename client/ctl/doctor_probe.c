/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vchanctl doctor looks with: files below its root, processes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/doctor.h"
#include "client/ctl/text.h"

void doctor_path(const struct doctor *doctor, const char *path, char *whole, size_t bytes)
{
    const char *root = doctor->ctl->root;

    snprintf(whole, bytes, "%s%s", root ? root : "", path);
}

int doctor_read(const struct doctor *doctor, const char *path, char *text, size_t bytes)
{
    char whole[PATH_MAX];

    doctor_path(doctor, path, whole, sizeof(whole));
    int descriptor = open(whole, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return -errno;
    size_t length = 0;
    ssize_t n;
    while ((n = read(descriptor, text + length, bytes - 1 - length)) > 0)
        length += (size_t)n;
    int r = n < 0 ? -errno : 0;
    close(descriptor);
    if (r < 0)
        return r;
    text[length] = '\0';
    if (length > 0 && text[length - 1] == '\n')
        text[length - 1] = '\0';
    for (char *tab = text; (tab = strchr(tab, '\t')); tab++)
        *tab = ' ';
    text_clean_lines(text, bytes);
    return 0;
}

int doctor_link(const struct doctor *doctor, const char *path, char *name, size_t bytes)
{
    char whole[PATH_MAX], target[PATH_MAX];

    doctor_path(doctor, path, whole, sizeof(whole));
    ssize_t n = readlink(whole, target, sizeof(target) - 1);
    if (n < 0)
        return -errno;
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    snprintf(name, bytes, "%s", slash ? slash + 1 : target);
    text_clean(name, bytes);
    return 0;
}

bool doctor_exists(const struct doctor *doctor, const char *path)
{
    char whole[PATH_MAX];

    doctor_path(doctor, path, whole, sizeof(whole));
    return access(whole, F_OK) == 0;
}

uint32_t doctor_process(const struct doctor *doctor, const char *name)
{
    char whole[PATH_MAX], path[64], comm[32];
    uint32_t found = 0;
    struct dirent *entry;

    doctor_path(doctor, "/proc", whole, sizeof(whole));
    DIR *directory = opendir(whole);
    while (directory && !found && (entry = readdir(directory))) {
        char *end;
        unsigned long pid = strtoul(entry->d_name, &end, 10);
        if (*end || pid == 0 || pid > INT_MAX)
            continue;
        snprintf(path, sizeof(path), "/proc/%lu/comm", pid);
        if (doctor_read(doctor, path, comm, sizeof(comm)) == 0 && strcmp(comm, name) == 0)
            found = (uint32_t)pid;
    }
    if (directory)
        closedir(directory);
    return found;
}

int doctor_process_status(const struct doctor *doctor, uint32_t pid, const char *key, char *value,
                          size_t bytes)
{
    char path[64], status[4096];

    snprintf(path, sizeof(path), "/proc/%u/status", pid);
    int r = doctor_read(doctor, path, status, sizeof(status));
    for (char *line = strtok(status, "\n"); r == 0 && line; line = strtok(NULL, "\n"))
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
            const char *start = line + strlen(key) + 1;
            snprintf(value, bytes, "%s", start + strspn(start, " "));
            return 0;
        }
    return r < 0 ? r : -ENOENT;
}
