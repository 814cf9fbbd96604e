/* core/formats/qcow2/image.h - an image file as it is found: qcow2, or the raw one that is the base of others. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "formats/found.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/image-name.h"
#include "formats/qcow2/neighbour.h"
#include "formats/qcow2/snapshot.h"

typedef struct Image Image;
struct Image {
        char *path;           /* below the root */
        const char *name;     /* the last part of path */
        struct stat st;
        uint64_t size;        /* of the disk, bytes */
        bool raw;             /* what follows is empty then */
        Qcow2Header header;
        Qcow2Snapshots snapshots;
        Neighbour data;       /* its data file; path NULL: it has none, or none that can be used */
        Neighbour below;      /* its backing file; path NULL: it has none, or none that can be used */
        char *without_below;  /* why none can be used; NULL: that is no problem */
        ImageName said;       /* by its name */
        char *problem;        /* why it cannot be used; NULL: it can */
        char *note;           /* what to know of it; or NULL */

        FoundEntry *entry;    /* family.c: of the directory that is looked into; NULL: it lies elsewhere */
        Image *backing;       /* borrowed; NULL: it has none */
        Image *base;          /* the end of its chain; itself where it has no backing */
        size_t walk;          /* the last one that came by */
        char *disk;           /* naming.c: the name of a base's disk */
        char *label;          /* tells the points of a chain apart; other disks with the same are of the same point */
};

/* 1; 0 where the file is no qcow2 image; -ENOMEM, or the reason why it is none that can be used. st: of the file. */
int image_open(LayerStore *store, const char *path, const struct stat *st, Image **ret, Reason *reterr);
/* The same of a file that another one says is raw: nothing is read. -ENOMEM. */
int image_open_raw(const char *path, const struct stat *st, Image **ret, Reason *reterr);
/* Makes a raw one of what looks like a qcow2 image: a guest can make its raw disk look like anything. */
void image_make_raw(Image *image);
Image *image_free(Image *image); /* always NULL */
DEFINE_CLEANUP(Image, image_free)

/* Appends to the note, behind a semicolon where there is something. -ENOMEM. */
int image_note(Image *image, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Only the first problem is kept. -ENOMEM. */
int image_problem(Image *image, const char *format, ...) __attribute__((format(printf, 2, 3)));
