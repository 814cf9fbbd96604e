#include "formats/virtnbdbackup/survey.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "formats/virtnbdbackup/frame.h"
#include "formats/virtnbdbackup/head.h"
#include "formats/virtnbdbackup/member.h"
#include "util/bytes.h"
#include "util/parallel.h"
#include "util/text.h"

#define ZIP ".zip"
#define BATCH 256 /* files */
#define ZIP_LOCAL_LENGTH 30u /* of a member's header, before its name */

static const char *base_name(const char *path) {
        const char *slash = strrchr(path, '/');

        return slash ? slash + 1 : path;
}

int item_location(const Survey *survey, const Item *item, const char *format, uint64_t grown_from, ItemLocation *ret) {
        Member member = { .grown_from = grown_from, .name = item->member ? item->member->name : NULL };
        CLEANUP(item_location_clear) ItemLocation made = { 0 };
        const struct stat *st = &item->entry->st;
        int rc = member_format(&member, &made.member);

        if (rc < 0)
                return rc;
        made.path = found_path(survey->directory, item->entry->name);
        if (!made.path)
                return -ENOMEM;
        made.location = (LayerLocation) { format, made.path, made.member, (uint64_t) st->st_size, found_seal(st) };
        *ret = made;
        made = (ItemLocation) { 0 };
        return 0;
}

void item_location_clear(ItemLocation *location) {
        free(location->path);
        free(location->member);
}

static int open_at(const Survey *survey, const Item *item, const ItemLocation *at, ByteStore **ret, Reason *reterr) {
        ByteStore *bytes;
        int rc = layer_store_open_file(survey->directory->store, &at->location, &bytes, reterr);

        if (rc < 0)
                return rc;
        if (item->member)
                return archive_open(bytes, item->member, ret, reterr);
        *ret = bytes;
        return 0;
}

static int item_open(const Survey *survey, const Item *item, ByteStore **ret, Reason *reterr) {
        CLEANUP(item_location_clear) ItemLocation at = { 0 };

        if (item_location(survey, item, "virtnbdbackup", UINT64_MAX, &at) < 0)
                return fail_oom(reterr);
        return open_at(survey, item, &at, ret, reterr);
}

int item_text(const Survey *survey, const Item *item, size_t limit, char **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        CLEANUP(freep) char *text = NULL;
        size_t length;
        int rc = item_open(survey, item, &bytes, reterr);

        if (rc < 0)
                return rc;
        length = (size_t) min_u64(limit, byte_store_size(bytes));
        text = calloc(1, length + 1);
        if (!text)
                return fail_oom(reterr);
        rc = byte_store_read(bytes, text, length, 0, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(text);
        return 0;
}

static int compare_items(const void *a, const void *b) {
        const Item *x = a, *y = b;

        return x->place != y->place ? (x->place > y->place) - (x->place < y->place) : strcmp(x->name, y->name);
}

const Item *survey_find(const Survey *survey, size_t place, const char *name) {
        Item wanted = { .place = place, .name = name };

        return bsearch(&wanted, survey->items, survey->item_count, sizeof wanted, compare_items);
}

void item_claim(const Item *item) {
        item->entry->claimed = true;
}

static int add_item(Survey *survey, const Item *item) {
        Item *grown = survey->items;

        if ((survey->item_count & (survey->item_count - 1)) == 0)
                grown = reallocarray(grown, survey->item_count ? survey->item_count * 2 : 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;
        survey->items = grown;
        grown[survey->item_count++] = *item;
        return 0;
}

/* Words that begin with the file's path lose it: whoever tells them names the file. */
static int refuse(const Survey *survey, FoundEntry *entry, const char *words) {
        CLEANUP(freep) char *path = found_path(survey->directory, entry->name);
        CLEANUP(freep) char *it = NULL;
        size_t length = path ? strlen(path) : 0;

        if (!path)
                return -ENOMEM;
        if (strncmp(words, path, length) != 0)
                return found_refuse(survey->directory, entry, words);
        if (strncmp(words + length, ": ", 2) == 0)
                return found_refuse(survey->directory, entry, words + length + 2);
        if (text_format(&it, "it%s", words + length) < 0)
                return -ENOMEM;
        return found_refuse(survey->directory, entry, it);
}

/* Whether a file that is no zip file as a whole began as one of streams. */
static bool began_as_ours(ByteStore *bytes) {
        char header[ZIP_LOCAL_LENGTH + 256] = "";
        size_t length = (size_t) min_u64(sizeof header - 1, byte_store_size(bytes)), name_length;
        DataName name;

        if (length < ZIP_LOCAL_LENGTH || byte_store_read(bytes, header, length, 0, NULL) < 0 ||
            memcmp(header, "PK\3\4", 4) != 0)
                return false;
        name_length = (size_t) min_u64(load_le16(header + 26), length - ZIP_LOCAL_LENGTH);
        header[ZIP_LOCAL_LENGTH + name_length] = '\0';
        return data_name_parse(header + ZIP_LOCAL_LENGTH, &name);
}

static bool has_streams(const Archive *archive) {
        DataName name;

        for (size_t i = 0; i < archive->count; i++)
                if (data_name_parse(base_name(archive->members[i].name), &name))
                        return true;
        return false;
}

static int enter_archive(Survey *survey, FoundEntry *entry) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        CLEANUP(archive_clear) Archive archive = { 0 };
        Item item = { .place = survey->place_count, .entry = entry };
        Reason reason = REASON_INIT;
        Place *grown;
        int rc = item_open(survey, &item, &bytes, &reason);

        if (rc < 0)
                return rc == -ENOMEM ? rc : 0; /* whoever else looks at it will say so */
        rc = archive_read(bytes, &archive, &reason);
        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                return began_as_ours(bytes) ? refuse(survey, entry, reason.text) : 0;
        if (!has_streams(&archive))
                return 0;
        grown = reallocarray(survey->places, survey->place_count + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;
        survey->places = grown;
        entry->claimed = true;
        for (size_t i = 0; i < archive.count; i++) {
                item.member = &archive.members[i];
                item.name = base_name(item.member->name);
                item.length = item.member->length;
                if (add_item(survey, &item) < 0)
                        return -ENOMEM;
        }
        grown[survey->place_count++] = (Place) { .entry = entry, .archive = archive };
        archive = (Archive) { 0 };
        return 0;
}

static bool is_zip(const char *name) {
        size_t length = strlen(name);

        return length > strlen(ZIP) && strcasecmp(name + length - strlen(ZIP), ZIP) == 0;
}

static int gather_items(Survey *survey) {
        FoundDirectory *directory = survey->directory;
        int rc = 0;

        survey->places = calloc(1, sizeof *survey->places);
        if (!survey->places)
                return -ENOMEM;
        survey->place_count = 1;
        for (size_t i = 0; rc >= 0 && i < directory->entry_count; i++) {
                FoundEntry *entry = &directory->entries[i];
                Item item = { .entry = entry, .name = entry->name, .length = (uint64_t) entry->st.st_size };

                if (!S_ISREG(entry->st.st_mode) || entry->claimed)
                        continue;
                rc = is_zip(entry->name) ? enter_archive(survey, entry) : add_item(survey, &item);
        }
        if (survey->item_count > 0)
                qsort(survey->items, survey->item_count, sizeof *survey->items, compare_items);
        return rc;
}

/* The moment in a differential's name, which is the better one: it has a time zone. */
static struct timespec named_date(const DataName *name) {
        struct timespec date = { 0 };
        long long seconds = 0;

        for (size_t i = 0; i < name->ident_length; i++) {
                char c = name->ident[i];

                if (c < '0' || c > '9' || i > 11)
                        return date;
                seconds = seconds * 10 + (c - '0');
        }
        date.tv_sec = (time_t) seconds;
        return date;
}

/* A stream whose beginning is damaged must not be taken for an image. 1: something of a stream is in it. */
static int remembers_stream(ByteStore *bytes, Reason *reterr) {
        char begin[1024], end[FRAME_HEADER_LENGTH];
        size_t length = (size_t) min_u64(sizeof begin, byte_store_size(bytes));
        Frame frame;
        int rc = byte_store_read(bytes, begin, length, 0, reterr);

        if (rc < 0 || length < sizeof end)
                return rc;
        rc = byte_store_read(bytes, end, sizeof end, byte_store_size(bytes) - sizeof end, reterr);
        if (rc < 0)
                return rc;
        return frame_parse((unsigned char *) end, &frame) || memmem(begin, length, "\"virtual", strlen("\"virtual"));
}

static int look_into_raw(ByteStore *bytes, Stream *stream, Reason *reterr) {
        int rc = remembers_stream(bytes, reterr);

        if (rc < 0)
                return rc;
        if (rc > 0)
                return fail(reterr, -EBADMSG, "the beginning of the stream is damaged");
        if (byte_store_size(bytes) == 0 || byte_store_size(bytes) % 512 != 0)
                return fail(reterr, -EBADMSG, "neither a stream nor an image of a disk");
        stream->is_raw = true;
        stream->metadata.size = byte_store_size(bytes);
        return 0;
}

/* What the content tells; or why it cannot be used. */
static int look_into(const Survey *survey, const Item *item, Stream *stream, Reason *reterr) {
        CLEANUP(item_location_clear) ItemLocation at = { 0 };
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        Window window = { 0 };
        Shape shape;
        int rc;

        if (item_location(survey, item, "virtnbdbackup", UINT64_MAX, &at) < 0)
                return fail_oom(reterr);
        rc = open_at(survey, item, &at, &bytes, reterr);
        if (rc < 0)
                return rc;
        if (byte_store_size(bytes) > WINDOW_SIZE) /* the end is fetched while the beginning is read */
                byte_store_expect(bytes, byte_store_size(bytes) - FRAME_HEADER_LENGTH, FRAME_HEADER_LENGTH);
        rc = metadata_begins(bytes, &window, reterr);
        if (rc < 0)
                return rc;
        if (rc == 0 && (stream->name.level == NAME_FULL || stream->name.level == NAME_COPY) && !stream->name.partial)
                return look_into_raw(bytes, stream, reterr);
        rc = metadata_read(bytes, &window, &stream->metadata, reterr);
        if (rc < 0)
                return rc;
        rc = shape_read(bytes, &stream->metadata, UINT64_MAX, &shape, reterr);
        if (rc < 0)
                return rc;
        if (!item->member)
                head_remember(survey->directory->store, &at.location, &stream->metadata, &shape);
        stream->was_cut = !shape.ends && !shape.compressed; /* of a compressed one the trailer alone may be missing */
        stream->lost_trailer = !shape.ends && shape.compressed;
        return 0;
}

static void stream_clear(Stream *stream) {
        if (stream->metadata.disk == stream->device)
                stream->metadata.disk = NULL;
        metadata_clear(&stream->metadata);
        free(stream->device);
}

/* Whether this is a backup that was broken off and has been made again since. */
static bool is_superseded(const Survey *survey, const Item *item, const DataName *name) {
        CLEANUP(freep) char *whole = name->partial ? strndup(item->name, strlen(item->name) - strlen(".partial")) : NULL;

        return whole && survey_find(survey, item->place, whole);
}

/* Files whose names are those of streams, looked into at once. */
typedef struct Batch {
        const Survey *survey;
        Stream streams[BATCH];
        int results[BATCH];
        Reason reasons[BATCH];
        size_t count;
} Batch;

static void look_into_one(void *context, size_t index) {
        Batch *batch = context;
        Stream *stream = &batch->streams[index];

        batch->results[index] = look_into(batch->survey, stream->item, stream, &batch->reasons[index]);
}

/* Takes a stream, whatever becomes of it. */
static int add_stream(Survey *survey, Stream *stream) {
        Stream *added = &survey->streams[survey->stream_count++];

        *added = *stream;
        *stream = (Stream) { 0 };
        added->device = strndup(added->item->name, added->name.device_length);
        if (!added->device)
                return -ENOMEM;
        if (!added->metadata.disk)
                added->metadata.disk = added->device;
        if (added->name.level == NAME_DIFFERENTIAL)
                added->date = named_date(&added->name);
        if (added->date.tv_sec == 0)
                added->date = added->metadata.date;
        return 0;
}

static int take_batch(Survey *survey, Batch *batch) {
        int rc = 0;

        batch->survey = survey;
        parallel_for(batch->count, SURVEY_THREADS, look_into_one, batch);
        for (size_t i = 0; i < batch->count; i++) {
                Stream *stream = &batch->streams[i];

                if (rc >= 0 && batch->results[i] >= 0)
                        rc = add_stream(survey, stream);
                else if (rc >= 0 && batch->results[i] == -ENOMEM)
                        rc = -ENOMEM;
                else if (rc >= 0)
                        rc = refuse(survey, stream->item->entry, batch->reasons[i].text);
                stream_clear(stream);
        }
        batch->count = 0;
        return rc;
}

static int add_streams(Survey *survey, Batch *batch) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < survey->item_count; i++) {
                const Item *item = &survey->items[i];
                DataName name;

                if (i > 0 && compare_items(item - 1, item) == 0) /* a zip file can have two of one name */
                        continue;
                if (!data_name_parse(item->name, &name))
                        continue;
                item_claim(item);
                if (is_superseded(survey, item, &name))
                        rc = refuse(survey, item->entry, "a backup that failed and has been made again since");
                else
                        batch->streams[batch->count++] = (Stream) { .item = item, .name = name };
                if (rc >= 0 && batch->count == BATCH)
                        rc = take_batch(survey, batch);
        }
        return rc < 0 ? rc : take_batch(survey, batch);
}

int survey_make(FoundDirectory *directory, Survey *ret) {
        CLEANUP(survey_clear) Survey survey = { .directory = directory };
        CLEANUP(freep) Batch *batch = calloc(1, sizeof *batch);
        int rc = gather_items(&survey);

        if (rc < 0)
                return rc;
        survey.streams = calloc(survey.item_count + 1, sizeof *survey.streams);
        if (!survey.streams || !batch)
                return -ENOMEM;
        rc = add_streams(&survey, batch);
        if (rc < 0)
                return rc;
        *ret = survey;
        survey = (Survey) { 0 };
        return 0;
}

void survey_clear(Survey *survey) {
        for (size_t i = 0; i < survey->stream_count; i++)
                stream_clear(&survey->streams[i]);
        for (size_t i = 0; i < survey->place_count; i++) {
                archive_clear(&survey->places[i].archive);
                free(survey->places[i].vm);
                free(survey->places[i].vm_uuid);
        }
        free(survey->streams);
        free(survey->items);
        free(survey->places);
        *survey = (Survey) { 0 };
}
