/* fs/command-line/path.h - a PATH of the command line: VM, VM/POINT or VM/POINT/DISK, named as in the mounted tree. */
#pragma once

#include "repository/point.h"
#include "repository/vm.h"

typedef struct Path {
        Vm *vm;
        char point[POINT_NAME_MAX]; /* "" where the path names a VM; 'latest' is resolved */
        char *disk;                 /* NULL where it names a VM or a point */
} Path;

/* -EINVAL where text is no such path; -ENOENT where there is no such VM or point. The disk is not looked up. */
int path_resolve(Repository *repository, const char *text, Path *ret, Reason *reterr);
/* The same in the repository at a place, which is opened; the caller frees it, after the path. */
int path_open(const char *repository_path, const char *text, Repository **ret_repository, Path *ret, Reason *reterr);
void path_clear(Path *path);
