#include "sources/disk-file.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "sources/disk-uri.h"
#include "sources/image-format.h"
#include "sources/image-identity.h"
#include "sources/image-server.h"
#include "sources/job-place.h"
#include "util/text.h"
#include "util/uri.h"

#define SCHEME "file:"
#define BITMAP_NAME_MAX 1023 /* bytes, as QEMU has it */

typedef struct FileSource {
        DiskSource source;
        char *path; /* absolute */
        char *format; /* NULL: not said */
        DiskUriCommon common; /* but for image */
        ImageChain chain; /* as it was inspected, or begun */
        JobPlace place;
        ImageServer *server;
} FileSource;

#define PARAMETERS(source)                                                                                     \
        {                                                                                                      \
                { "format", &(source)->format, false }, { "bitmap", &(source)->common.bitmap, false },         \
                { "checkpoint", &(source)->common.checkpoint, false },                                         \
                { "timeout", &(source)->common.timeout, false },                                               \
        }

static void stop(FileSource *source) {
        if (source->server)
                source->server = image_server_stop(source->server);
        job_place_remove(&source->place);
}

static void file_free(DiskSource *base) {
        FileSource *source = (FileSource *) base;

        stop(source);
        image_chain_clear(&source->chain);
        free(source->path);
        free(source->format);
        disk_uri_common_clear(&source->common);
        free(source);
}

static void file_freep(FileSource **source) {
        if (*source)
                file_free(&(*source)->source);
}

static bool file_claims(const char *uri) {
        return strncmp(uri, SCHEME, strlen(SCHEME)) == 0;
}

static int take_path(FileSource *source, const char *text, size_t length, Reason *reterr) {
        if (length >= 2 && strncmp(text, "//", 2) == 0) {
                size_t host = strncmp(text, "//localhost/", 12) == 0 ? strlen("localhost") : 0;

                text += 2 + host;
                length -= 2 + host;
                if (length == 0 || *text != '/')
                        return fail(reterr, -EINVAL, "it names a host: an image is file:///PATH, or file:PATH for one in or "
                                                     "below the current directory");
        }
        if (memchr(text, '#', length))
                return fail(reterr, -EINVAL, "a \"#\" is written %%23");
        if (uri_unescape(text, length, &source->path) < 0)
                return fail(reterr, -EINVAL, "its path has a \"%%\" that is no escape; write %%25 for one");
        if (!*source->path)
                return fail(reterr, -EINVAL, "it names no image");
        return disk_uri_make_absolute(&source->path, reterr);
}

/* QEMU's options are made of it. */
static bool is_format(const char *text) {
        for (const char *c = text; *c; c++)
                if (!isalnum((unsigned char) *c) && *c != '-')
                        return false;
        return *text;
}

/* It becomes a word of qemu-nbd's command line. */
static bool is_bitmap(const char *text) {
        return !text || strlen(text) <= BITMAP_NAME_MAX;
}

static int file_open(const SourceOwner *owner, const char *disk, const char *text, DiskSource **ret, Reason *reterr) {
        CLEANUP(file_freep) FileSource *source = calloc(1, sizeof *source);
        const DiskUriParameter parameters[] = PARAMETERS(source);
        const char *path = text + strlen(SCHEME);
        size_t length = strcspn(path, "?"), count = sizeof parameters / sizeof *parameters;
        int rc;

        (void) owner;
        (void) disk;
        if (!source)
                return fail_oom(reterr);
        rc = disk_uri_take(path[length] ? path + length + 1 : NULL, parameters, count, &source->common, reterr);
        if (rc == 0)
                rc = take_path(source, path, length, reterr);
        if (rc == 0 && source->format && !is_format(source->format))
                rc = fail(reterr, -EINVAL, "\"%s\" is no format of an image", source->format);
        if (rc == 0 && (!is_bitmap(source->common.bitmap) || !is_bitmap(source->common.checkpoint)))
                rc = fail(reterr, -EINVAL, "no bitmap can have so long a name");
        if (rc < 0)
                return rc == -ENOMEM ? rc : fail_within(reterr, rc, "%s", text);
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

static void warn_guessed(const DiskSource *base, const char *format) {
        source_warn(base->owner, "%s: its image is taken for %s, as it looks like that; if it is not, say so in its URI: "
                                 "format=raw", base->disk, format);
}

/* Its format, whatever the guest does to it from now on. */
static int settle_format(FileSource *source, Reason *reterr) {
        const char *guessed;
        int rc;

        if (source->format && access(source->path, F_OK) < 0)
                return fail_errno(reterr, -errno, "cannot open the image %s", source->path);
        if (source->format)
                return 0;
        rc = image_format_guess(source->path, &guessed, reterr);
        if (rc < 0)
                return rc;
        if (strcmp(guessed, "raw") != 0)
                warn_guessed(&source->source, guessed);
        source->format = strdup(guessed);
        return source->format ? 0 : fail_oom(reterr);
}

static int file_settle(DiskSource *base, char **ret, Reason *reterr) {
        CLEANUP(freep) char *escaped = NULL, *whole = NULL;
        FileSource *source = (FileSource *) base;
        const DiskUriParameter parameters[] = PARAMETERS(source);
        int rc;

        rc = settle_format(source, reterr);
        if (rc < 0)
                return rc;
        if (uri_escape(source->path, &escaped) < 0 || text_format(&whole, "file://%s", escaped) < 0)
                return fail_oom(reterr);
        rc = disk_uri_format(whole, parameters, sizeof parameters / sizeof *parameters, ret);
        return rc < 0 ? fail_oom(reterr) : 0;
}

/* Why a bitmap cannot be used; "" where it can. */
static void check_bitmap(const ImageChain *chain, const char *name, Reason *ret) {
        const ImageBitmap *bitmap = image_find_bitmap(&chain->images[0], name);

        *ret = REASON_INIT;
        if (strcmp(chain->images[0].format, "qcow2") != 0)
                fail(ret, 0, "%s image cannot carry a bitmap", chain->images[0].format);
        else if (!bitmap)
                fail(ret, 0, "its image has no bitmap %s", name);
        else if (!bitmap->consistent)
                fail(ret, 0, "its bitmap %s is inconsistent: QEMU did not end in good order", name);
        else if (!bitmap->recording)
                fail(ret, 0, "its bitmap %s is not kept up", name);
        for (size_t i = 1; !ret->text[0] && i < chain->count; i++)
                if (image_find_bitmap(&chain->images[i], name))
                        fail(ret, 0, "%s has a bitmap %s as well, and they are not put together",
                             chain->images[i].path, name);
}

static int look_at(FileSource *source, Reason *reterr) {
        DiskSource *base = &source->source;
        int rc;

        rc = settle_format(source, reterr);
        if (rc < 0)
                return rc;
        image_chain_clear(&source->chain);
        rc = image_chain_read(source->path, source->format, base->owner->cancel, &source->chain, reterr);
        if (rc < 0)
                return rc;
        free(STEAL_PTR(base->checkpoint));
        if (source->common.checkpoint) {
                Reason why;

                check_bitmap(&source->chain, source->common.checkpoint, &why);
                if (why.text[0])
                        return fail(reterr, -EINVAL, "no later capture can start from it: %s", why.text);
                base->checkpoint = strdup(source->common.checkpoint);
                if (!base->checkpoint)
                        return fail_oom(reterr);
        }
        return 0;
}

static int file_inspect(DiskSource *base, SourceDisk *ret, Reason *reterr) {
        FileSource *source = (FileSource *) base;
        Reason why;
        int rc;

        if (!source->server) {
                rc = look_at(source, reterr);
                if (rc < 0)
                        return rc;
        }
        if (source->common.bitmap)
                check_bitmap(&source->chain, source->common.bitmap, &why);
        else
                fail(&why, 0, "its URI names no bitmap");
        free(STEAL_PTR(base->bitmap));
        ret->tracks_changes = !why.text[0];
        if (ret->tracks_changes)
                base->bitmap = strdup(source->common.bitmap);
        else
                ret->why_not = strdup(why.text);
        if (source->chain.count > 1)
                ret->backing = strdup(source->chain.images[1].path);
        if ((!base->bitmap && !ret->why_not) || (source->chain.count > 1 && !ret->backing))
                return fail_oom(reterr);
        for (size_t i = 0; i < source->chain.count; i++) {
                CLEANUP(freep) char *identity = NULL;

                if (image_path_identity(source->chain.images[i].path, &identity) < 0 ||
                    strings_add(&ret->images, identity) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

static JobPlaceWish wish_of(const DiskSource *base) {
        return (JobPlaceWish) {
                .repository = base->owner->repository,
                .vm_uuid = base->owner->vm_uuid,
                .off = true,
                .domain_id = -1,
                .domain_name = "",
        };
}

static int open_reader(FileSource *source, const SourceView *view, SourceReader **ret, Reason *reterr) {
        return image_server_open_reader(source->server, view, source->common.timeout_s * 1000,
                                        source->source.owner->cancel, ret, reterr);
}

static int start(FileSource *source, const SourceView *view, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        CLEANUP(freep) char *socket_path = NULL;
        const JobPlaceWish wish = wish_of(&source->source);
        ImageServing serving = {
                .chain = &source->chain,
                .bitmap = view->incremental ? source->common.bitmap : NULL,
                .top = view->top,
        };
        int rc;

        rc = job_place_make(&wish, &source->place, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&socket_path, "%s/nbd", source->place.made[0]) < 0)
                return fail_oom(reterr);
        serving.socket_path = socket_path;
        rc = image_server_start(&serving, &source->server, reterr);
        return rc == 0 ? open_reader(source, view, &reader, reterr) : rc;
}

static int file_begin(DiskSource *base, const SourceView *view, Reason *reterr) {
        FileSource *source = (FileSource *) base;
        int rc;

        if (view->top && source->chain.count < 2)
                return fail(reterr, -ENOTSUP, "its image has no backing file that it could lie above");
        rc = start(source, view, reterr);
        if (rc < 0)
                stop(source);
        return rc;
}

static int file_open_reader(DiskSource *base, const SourceView *view, SourceReader **ret, Reason *reterr) {
        return open_reader((FileSource *) base, view, ret, reterr);
}

static int file_check(DiskSource *base, Reason *reterr) {
        const FileSource *source = (const FileSource *) base;

        return source->server ? image_server_check_untouched(source->server, reterr) : 0;
}

static int file_end(DiskSource *base, Reason *reterr) {
        (void) reterr;
        stop((FileSource *) base);
        return 0;
}

static int file_end_leftovers(DiskSource *base, Reason *reterr) {
        const JobPlaceWish wish = wish_of(base);

        (void) reterr;
        if (wish.vm_uuid)
                job_place_sweep(&wish);
        return 0;
}

const DiskSourceOps disk_file_ops = {
        .name = "file",
        .claims = file_claims,
        .open = file_open,
        .settle = file_settle,
        .inspect = file_inspect,
        .begin = file_begin,
        .open_reader = file_open_reader,
        .watch = file_check,
        .confirm = file_check,
        .end = file_end,
        .end_leftovers = file_end_leftovers,
        .free = file_free,
};
