/* core/formats/virtnbdbackup/survey.h - the streams in a directory and in the zip files there, as they tell of themselves.
 *
 * Threads: one. */
#pragma once

#include "formats/found.h"
#include "formats/virtnbdbackup/archive.h"
#include "formats/virtnbdbackup/data-name.h"
#include "formats/virtnbdbackup/metadata.h"

/* The directory, or a zip file in it. */
typedef struct Place {
        FoundEntry *entry; /* the zip file; NULL: the directory */
        Archive archive;
        char *vm, *vm_uuid; /* of the domain that its streams are of; or NULL */
} Place;

/* A file in a place. */
typedef struct Item {
        size_t place;
        FoundEntry *entry;           /* it, or the zip file that it is in */
        const ArchiveMember *member; /* NULL: not in a zip file */
        const char *name;            /* without directories; borrowed */
        uint64_t length;             /* bytes */
} Item;

typedef struct Stream {
        const Item *item;
        DataName name;
        Metadata metadata; /* disk is never NULL */
        bool is_raw;       /* a plain image: nothing but disk and size is told */
        bool was_cut;      /* its end is missing, and with it what was stored there */
        bool lost_trailer;
        struct timespec date; /* that it tells; of a differential one the moment in its name; 0: none */
        char *device;         /* as the name has it; metadata.disk points here where the metadata have none */
} Stream;

#define SURVEY_THREADS 8 /* that look into files: most of the time is waiting for the disk */

typedef struct Survey {
        FoundDirectory *directory;
        Place *places; /* the first is the directory */
        size_t place_count;
        Item *items; /* sorted by place and name */
        size_t item_count;
        Stream *streams;
        size_t stream_count;
} Survey;

/* Refuses, in the directory, what is called a stream and is none. -ENOMEM. */
int survey_make(FoundDirectory *directory, Survey *ret);
void survey_clear(Survey *survey);

typedef struct ItemLocation {
        LayerLocation location; /* borrows the next two */
        char *path, *member;
} ItemLocation;

/* Where the item lies. grown_from: see member.h. -ENOMEM. */
int item_location(const Survey *survey, const Item *item, const char *format, uint64_t grown_from, ItemLocation *ret);
void item_location_clear(ItemLocation *location);
/* Its first bytes, at most limit, as a text. The caller frees *ret. */
int item_text(const Survey *survey, const Item *item, size_t limit, char **ret, Reason *reterr);

/* NULL: none of this name in the place. */
const Item *survey_find(const Survey *survey, size_t place, const char *name);
/* For whoever uses the item of a directory: nobody else shall. */
void item_claim(const Item *item);
