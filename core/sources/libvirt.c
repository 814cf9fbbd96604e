#include "sources/libvirt.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "sources/job-place.h"
#include "sources/job-xml.h"
#include "sources/libvirt-domain.h"
#include "sources/libvirt-uri.h"
#include "sources/nbd-reader.h"

#define NVRAM_LIMIT (64u << 20)
#define PATIENCE_MS 30000       /* for libvirtd to come back, and for a job to end */
#define POLL_MS 50
#define RECONNECT_MS 250
#define KEEPALIVE_SECONDS 5     /* a libvirtd that does not answer this often … */
#define KEEPALIVE_COUNT 6       /* … so many times is given up */

typedef struct LibvirtSource {
        Source source;
        LibvirtUri uri;
        const char *name;       /* of the domain */
        virConnectPtr connection;
        Domain domain;          /* at the last inspection */
        size_t *captured;       /* which of its disks are the inspection's, in order */
        size_t captured_count;
        char uuid[VIR_UUID_STRING_BUFLEN];
        bool begun;
        JobPlace place;         /* of the job that was begun */
        char *checkpoint;       /* made with it, or NULL */
} LibvirtSource;

static void domain_freep(virDomainPtr *domain) {
        if (*domain)
                virDomainFree(*domain);
}

static void checkpoint_freep(virDomainCheckpointPtr *checkpoint) {
        if (*checkpoint)
                virDomainCheckpointFree(*checkpoint);
}

/* ---- errors ---- */

static void say_nothing(void *data, virErrorPtr error) {
}

static const char *libvirt_words(void) {
        return virGetLastErrorMessage();
}

static int libvirt_code(int otherwise) {
        const virError *error = virGetLastError();

        switch (error ? error->code : VIR_ERR_OK) {
        case VIR_ERR_NO_MEMORY:
                return -ENOMEM;
        case VIR_ERR_NO_DOMAIN:
                return -ENOENT;
        case VIR_ERR_NO_DOMAIN_CHECKPOINT:
        case VIR_ERR_CHECKPOINT_INCONSISTENT:
                return -ESTALE;
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_ACCESS_DENIED:
                return -EACCES;
        case VIR_ERR_OPERATION_TIMEOUT:    /* another operation on the domain has its lock */
        case VIR_ERR_BLOCK_COPY_ACTIVE:
                return -EBUSY;
        case VIR_ERR_RPC:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_NO_CONNECT:
                return -ENOTCONN;
        case VIR_ERR_SYSTEM_ERROR:
        case VIR_ERR_INTERNAL_ERROR:
                return error->domain == VIR_FROM_RPC ? -ENOTCONN : otherwise;
        default:
                return otherwise;
        }
}

static int fail_libvirt(Reason *reterr, int otherwise, const char *what) {
        return fail(reterr, libvirt_code(otherwise), "%s: %s", what, libvirt_words());
}

static void warn(const LibvirtSource *source, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(const LibvirtSource *source, const char *format, ...) {
        const SourceOwner *owner = &source->source.owner;
        char line[REASON_MAX];
        va_list args;

        if (!owner->warn)
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        owner->warn(owner->context, line);
}

/* ---- connection ---- */

/* libvirt's keepalive, without which a libvirtd that hangs would hang us for ever, needs an event loop that runs. */
static void *run_events(void *data) {
        for (;;)
                if (virEventRunDefaultImpl() < 0)
                        usleep(POLL_MS * 1000);
        return NULL;
}

static bool events_run;

static void start_libvirt(void) {
        sigset_t all, before;
        pthread_t thread;

        virSetErrorFunc(NULL, say_nothing);
        if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
                return;
        /* Signals are for the threads of the program. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        events_run = pthread_create(&thread, NULL, run_events, NULL) == 0;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (events_run)
                pthread_detach(thread);
}

static int connect_to(LibvirtSource *source, Reason *reterr) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        pthread_once(&once, start_libvirt);
        if (source->connection && virConnectIsAlive(source->connection) > 0)
                return 0;
        if (source->connection)
                virConnectClose(source->connection);
        source->connection = virConnectOpen(source->uri.uri);
        if (!source->connection)
                return fail(reterr, libvirt_code(-ENOTCONN), "cannot connect to libvirt at %s: %s", source->uri.uri,
                            libvirt_words());
        if (events_run)
                virConnectSetKeepAlive(source->connection, KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
        return 0;
}

static int find_domain(LibvirtSource *source, virDomainPtr *ret, Reason *reterr) {
        const char *expected = source->source.owner.vm_uuid;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        int rc;

        rc = connect_to(source, reterr);
        if (rc < 0)
                return rc;
        domain = virDomainLookupByName(source->connection, source->name);
        if (!domain) {
                rc = libvirt_code(-EIO);
                if (rc == -ENOENT)
                        return fail(reterr, rc, "%s has no VM named %s", source->uri.uri, source->name);
                return fail(reterr, rc, "cannot look up the VM %s: %s", source->name, libvirt_words());
        }
        if (virDomainGetUUIDString(domain, source->uuid) < 0)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's UUID");
        if (expected && strcasecmp(expected, source->uuid) != 0)
                return fail(reterr, -ESTALE, "the VM named %s is another one now: its UUID is %s, not %s", source->name,
                            source->uuid, expected);
        *ret = STEAL_PTR(domain);
        return 0;
}

static bool is_active(virDomainPtr domain) {
        return virDomainIsActive(domain) > 0;
}

/* ---- identify, inspect ---- */

static int libvirt_identify(Source *base, char **ret, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        char *uuid;
        int rc;

        rc = find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        uuid = strdup(source->uuid);
        if (!uuid)
                return fail_oom(reterr);
        *ret = uuid;
        return 0;
}

static const char *state_name(virDomainPtr domain) {
        int state = VIR_DOMAIN_NOSTATE, reason;

        virDomainGetState(domain, &state, &reason, 0);
        return state == VIR_DOMAIN_CRASHED ? "crashed" : "shut off";
}

static int check_active(virDomainPtr domain, Reason *reterr) {
        if (is_active(domain))
                return 0;
        if (libvirt_code(0) == -ENOTCONN)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's state");
        return fail(reterr, -EHOSTDOWN, "the VM is %s: start it, a backup is taken while it runs", state_name(domain));
}

static int copy_images(const Strings *from, Strings *to) {
        for (size_t i = 0; i < from->count; i++)
                if (strings_add(to, from->items[i]) < 0)
                        return -ENOMEM;
        return 0;
}

static int take_disks(LibvirtSource *source, SourceVm *vm, Reason *reterr) {
        const Domain *domain = &source->domain;

        free(source->captured);
        source->captured_count = 0;
        source->captured = calloc(domain->disk_count + 1, sizeof *source->captured);
        vm->disks = calloc(domain->disk_count + 1, sizeof *vm->disks);
        if (!source->captured || !vm->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < domain->disk_count; i++) {
                const DomainDisk *from = &domain->disks[i];
                SourceDisk *to = &vm->disks[vm->disk_count];

                if (from->left_out) {
                        warn(source, "%s is left out: %s", from->name, from->left_out);
                        continue;
                }
                vm->disk_count++;
                to->name = strdup(from->name);
                to->tracks_changes = !from->why_not;
                to->why_not = from->why_not ? strdup(from->why_not) : NULL;
                if (!to->name || (from->why_not && !to->why_not) || copy_images(&from->images, &to->images) < 0)
                        return fail_oom(reterr);
                if (from->encrypted)
                        warn(source, "%s is encrypted by QEMU: its backup is stored decrypted", from->name);
                source->captured[source->captured_count++] = i;
        }
        if (vm->disk_count == 0)
                return fail(reterr, -ENODEV, "the VM %s has no disk that could be captured", source->name);
        return 0;
}

static int add_file(SourceVm *vm, const char *name, char *content, size_t length) {
        SourceFile *grown = reallocarray(vm->files, vm->file_count + 1, sizeof *grown);

        if (!grown) {
                free(content);
                return -ENOMEM;
        }
        vm->files = grown;
        grown[vm->file_count] = (SourceFile) { .name = strdup(name), .content = content, .length = length };
        return grown[vm->file_count++].name ? 0 : -ENOMEM;
}

/* The directory may be reached over symbolic links, the file may be none. */
static int read_absolute(const char *path, size_t limit, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *directory = strdup(path);
        CLEANUP(close_fd) int fd = -1;
        char *name = directory ? strrchr(directory, '/') : NULL;

        if (!name)
                return fail_oom(reterr);
        *name++ = 0;
        fd = open(*directory ? directory : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot open %s", directory);
        return read_file(fd, name, limit, ret, ret_length, reterr);
}

static int take_nvram(LibvirtSource *source, SourceVm *vm) {
        char *content;
        size_t length;
        Reason reason;

        if (!source->domain.nvram)
                return 0;
        if (!source->uri.local || read_absolute(source->domain.nvram, NVRAM_LIMIT, &content, &length, &reason) < 0) {
                warn(source, "the VM's NVRAM file %s cannot be read and is not kept with the backup: %s",
                     source->domain.nvram, source->uri.local ? reason.text : "it is on another machine");
                return 0;
        }
        return add_file(vm, "nvram", content, length);
}

static int libvirt_inspect(Source *base, SourceVm *ret, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        CLEANUP(freep) char *text = NULL;
        Domain parsed;
        int rc;

        rc = find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        rc = check_active(domain, reterr);
        if (rc < 0)
                return rc;
        text = virDomainGetXMLDesc(domain, 0);
        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot get the VM's definition");
        rc = domain_parse(text, source->uri.local, &parsed, reterr);
        if (rc < 0)
                return rc;
        domain_clear(&source->domain);
        source->domain = parsed;
        vm.uuid = strdup(source->uuid);
        rc = take_disks(source, &vm, reterr);
        if (rc < 0)
                return rc;
        rc = add_file(&vm, "domain.xml", text, strlen(text));
        text = NULL;
        if (rc < 0 || !vm.uuid || take_nvram(source, &vm) < 0)
                return fail_oom(reterr);
        *ret = vm;
        vm = (SourceVm) { 0 };
        return 0;
}

/* ---- jobs ---- */

typedef enum JobFound {
        JOB_NONE,
        JOB_OURS,
        JOB_OTHER, /* somebody else's backup */
} JobFound;

static int find_job(LibvirtSource *source, virDomainPtr domain, JobFound *ret, Reason *reterr) {
        CLEANUP(freep) char *text = virDomainBackupGetXMLDesc(domain, 0);
        CLEANUP(freep) char *socket = NULL;
        char tag[JOB_TAG_MAX];
        int rc;

        if (!text) {
                const virError *error = virGetLastError();

                if (!error || (error->code != VIR_ERR_NO_DOMAIN_BACKUP && error->code != VIR_ERR_OPERATION_INVALID))
                        return fail_libvirt(reterr, -EIO, "cannot tell whether the VM has a backup job");
                *ret = JOB_NONE;
                return 0;
        }
        rc = job_xml_socket(text, &socket, reterr);
        if (rc < 0)
                return rc;
        job_tag(source->source.owner.repository, source->uuid, tag);
        *ret = job_is_ours(socket, tag) ? JOB_OURS : JOB_OTHER;
        return 0;
}

static int busy_with_other(Reason *reterr) {
        return fail(reterr, -EBUSY, "the VM has a backup job that another program began: wait for it, or end it with "
                                    "virsh domjobabort");
}

/* One attempt to end the job of ours; 0 as well when none is there any more. */
static int try_to_end(LibvirtSource *source, JobFound *ret_left, Reason *reterr) {
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        bool asked = false;
        Reason why;
        int rc;

        *ret_left = JOB_NONE;
        rc = find_domain(source, &domain, reterr);
        if (rc == -ENOENT || rc == -ESTALE)
                return 0;
        if (rc < 0)
                return rc;
        for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
                JobFound found;

                rc = find_job(source, domain, &found, reterr);
                if (rc == -ENOENT)
                        return 0;
                if (rc < 0)
                        return rc;
                if (found != JOB_OURS) {
                        *ret_left = found;
                        return 0;
                }
                /* A failure to abort is looked at again: the job may just have ended by itself. */
                if (!asked && virDomainAbortJob(domain) < 0) {
                        rc = fail_libvirt(&why, -EIO, "cannot end the backup job");
                        if (rc == -ENOTCONN)
                                return fail(reterr, rc, "%s", why.text);
                } else {
                        asked = true;
                        rc = 0;
                }
                usleep(POLL_MS * 1000);
        }
        return rc < 0 ? fail(reterr, rc, "%s", why.text) : fail(reterr, -ETIMEDOUT, "the backup job does not end");
}

/* Outlives a restart of libvirtd. */
static int end_ours(LibvirtSource *source, JobFound *ret_left, Reason *reterr) {
        Reason reason;
        int rc = -ENOTCONN;

        for (int waited = 0; rc == -ENOTCONN && waited < PATIENCE_MS; waited += RECONNECT_MS) {
                if (waited > 0)
                        usleep(RECONNECT_MS * 1000);
                rc = try_to_end(source, ret_left, &reason);
        }
        return rc < 0 ? fail(reterr, rc, "%s", reason.text) : 0;
}

static int libvirt_end(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        JobFound left;
        int rc;

        if (!source->begun)
                return 0;
        rc = end_ours(source, &left, reterr);
        if (rc < 0)
                return rc; /* QEMU may still use the files */
        job_place_remove(&source->place);
        free(STEAL_PTR(source->checkpoint));
        source->begun = false;
        return 0;
}

static JobPlaceWish place_wish(const LibvirtSource *source, virDomainPtr domain) {
        unsigned id = domain ? virDomainGetID(domain) : (unsigned) -1;

        return (JobPlaceWish) {
                .repository = source->source.owner.repository,
                .vm_uuid = source->source.owner.vm_uuid ?: source->uuid,
                .session = source->uri.session,
                .domain_id = (int) id,
                .domain_name = source->name,
                .scratch_directory = source->source.owner.scratch_directory,
        };
}

static int libvirt_end_leftovers(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        JobPlaceWish wish;
        JobFound left;
        int rc;

        rc = end_ours(source, &left, reterr);
        if (rc < 0)
                return rc;
        find_domain(source, &domain, NULL);
        wish = place_wish(source, domain);
        job_place_sweep(&wish);
        return left == JOB_OTHER ? busy_with_other(reterr) : 0;
}

/* A job of another kind would let the begin wait for its lock. */
static int check_no_job(LibvirtSource *source, virDomainPtr domain, Reason *reterr) {
        virDomainJobInfo info;
        JobFound found;
        int rc;

        rc = find_job(source, domain, &found, reterr);
        if (rc < 0)
                return rc;
        if (found == JOB_OURS) {
                rc = end_ours(source, &found, reterr);
                if (rc < 0)
                        return rc;
        }
        if (found == JOB_OTHER)
                return busy_with_other(reterr);
        if (virDomainGetJobInfo(domain, &info) == 0 &&
            (info.type == VIR_DOMAIN_JOB_BOUNDED || info.type == VIR_DOMAIN_JOB_UNBOUNDED))
                return fail(reterr, -EBUSY, "the VM is being migrated, saved or dumped: wait until that is done");
        return 0;
}

static void job_disks_free(JobDisk **disks) {
        for (JobDisk *disk = *disks; disk && disk->name; disk++)
                free((char *) disk->scratch);
        free(*disks);
}

static int job_disks(const LibvirtSource *source, const SourceJob *job, JobDisk **ret, Reason *reterr) {
        CLEANUP(job_disks_free) JobDisk *disks = calloc(source->domain.disk_count + 1, sizeof *disks);

        if (!disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < source->domain.disk_count; i++)
                disks[i].name = source->domain.disks[i].name;
        for (size_t i = 0; i < source->captured_count; i++) {
                JobDisk *disk = &disks[source->captured[i]];

                disk->backup = true;
                disk->incremental = job->base && job->incremental[i];
                disk->checkpoint = !source->domain.disks[source->captured[i]].why_not;
                disk->scratch = job_place_scratch(&source->place, disk->name);
                if (!disk->scratch)
                        return fail_oom(reterr);
        }
        *ret = STEAL_PTR(disks);
        return 0;
}

/* ---- checkpoints ---- */

static virDomainCheckpointPtr redefine(virDomainPtr domain, const char *definition, const char *name, const Strings *disks) {
        CLEANUP(freep) char *text = NULL;

        virResetLastError();
        if (disks->count == 0 || job_xml_redefine(definition, name, disks, &text, NULL) < 0)
                return NULL;
        return virDomainCheckpointCreateXML(domain, text, VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE |
                                                                  VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE);
}

/* The disks of a checkpoint that the VM has (still). */
static int present_disks(const Domain *domain, const char *definition, Strings *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings all = { 0 }, present = { 0 };
        int rc;

        rc = job_xml_checkpoint_disks(definition, &all, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < all.count; i++)
                for (size_t d = 0; d < domain->disk_count; d++)
                        if (strcmp(all.items[i], domain->disks[d].name) == 0 && strings_add(&present, all.items[i]) < 0)
                                return fail_oom(reterr);
        *ret = present;
        present = (Strings) { 0 };
        return 0;
}

/* Sees to it that libvirt knows the base, which it forgets with a VM that is transient or was moved. */
static int ensure_base(const LibvirtSource *source, virDomainPtr domain, const SourceJob *job, const JobDisk *disks,
                       Reason *reterr) {
        CLEANUP(checkpoint_freep) virDomainCheckpointPtr checkpoint = NULL;
        CLEANUP(strings_free) Strings present = { 0 }, wanted = { 0 };
        int rc;

        checkpoint = virDomainCheckpointLookupByName(domain, job->base, 0);
        if (checkpoint)
                return 0;
        rc = libvirt_code(-EIO);
        if (rc != -ESTALE)
                return fail_libvirt(reterr, rc, "cannot look up the checkpoint of the last backup");
        if (!job->base_definition)
                return fail(reterr, -ESTALE, "the checkpoint %s is gone", job->base);
        if (present_disks(&source->domain, job->base_definition, &present, reterr) < 0)
                return -ESTALE;
        checkpoint = redefine(domain, job->base_definition, job->base, &present);
        if (checkpoint)
                return 0;
        /* A disk whose bitmap is gone for a reason of its own is no matter where it gets a full layer anyway. */
        for (size_t i = 0; i < source->domain.disk_count; i++)
                if (disks[i].incremental && strings_add(&wanted, disks[i].name) < 0)
                        return fail_oom(reterr);
        checkpoint = redefine(domain, job->base_definition, job->base, &wanted);
        if (checkpoint)
                return 0;
        rc = libvirt_code(-ESTALE);
        return fail(reterr, rc, "the checkpoint %s is gone, and cannot be defined again: %s", job->base, libvirt_words());
}

/* Which disks of a checkpoint still have its bitmap: libvirt is asked for each alone. */
static void disks_with_bitmap(virDomainPtr domain, const char *definition, const char *name, Strings *ret) {
        CLEANUP(strings_free) Strings all = { 0 };

        if (job_xml_checkpoint_disks(definition, &all, NULL) < 0)
                return;
        for (size_t i = 0; i < all.count; i++) {
                const Strings one = { .items = &all.items[i], .count = 1 };
                CLEANUP(checkpoint_freep) virDomainCheckpointPtr found = redefine(domain, definition, name, &one);

                if (found)
                        strings_add(ret, all.items[i]);
        }
}

static int delete_checkpoint(virDomainPtr domain, virDomainCheckpointPtr checkpoint, Reason *reterr) {
        CLEANUP(freep) char *definition = NULL;
        CLEANUP(strings_free) Strings disks = { 0 };
        const char *name = virDomainCheckpointGetName(checkpoint);
        Reason first;
        int rc;

        if (virDomainCheckpointDelete(checkpoint, 0) == 0)
                return 0;
        rc = libvirt_code(-EIO);
        fail(&first, rc, "cannot delete the checkpoint %s: %s", name, libvirt_words());
        if (rc == -ENOTCONN || rc == -EBUSY || rc == -EACCES)
                return fail(reterr, rc, "%s", first.text);
        definition = virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN);
        if (!definition)
                return fail(reterr, rc, "%s", first.text);
        disks_with_bitmap(domain, definition, name, &disks);
        if (disks.count == 0) {
                rc = virDomainCheckpointDelete(checkpoint, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) < 0 ? rc : 0;
        } else {
                CLEANUP(checkpoint_freep) virDomainCheckpointPtr again = redefine(domain, definition, name, &disks);

                rc = again && virDomainCheckpointDelete(again, 0) == 0 ? 0 : rc;
        }
        return rc < 0 ? fail(reterr, rc, "%s", first.text) : 0;
}

static bool is_kept(const char *name, const char *const *keep, size_t count) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(name, keep[i]) == 0)
                        return true;
        return false;
}

/* Deletes what is ours and not kept; the first failure is told, the others are tried all the same. */
static int delete_unkept(virDomainPtr domain, const char *prefix, virDomainCheckpointPtr *list, int listed,
                         const char *const *keep, size_t count, Reason *reterr) {
        int result = 0;

        for (int i = 0; i < listed; i++) {
                const char *name = virDomainCheckpointGetName(list[i]);
                int rc;

                if (strncmp(name, prefix, strlen(prefix)) != 0 || is_kept(name, keep, count))
                        continue;
                if (!is_active(domain))
                        return fail(reterr, -EAGAIN, "the checkpoint %s stays until the VM runs again: libvirt deletes none "
                                                     "of a VM that is off", name);
                rc = delete_checkpoint(domain, list[i], result == 0 ? reterr : NULL);
                result = result < 0 ? result : rc;
        }
        return result;
}

static int libvirt_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        virDomainCheckpointPtr *list = NULL;
        char prefix[JOB_TAG_MAX];
        int rc, listed;

        rc = find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        listed = virDomainListAllCheckpoints(domain, &list, 0);
        if (listed < 0)
                return fail_libvirt(reterr, -EIO, "cannot list the VM's checkpoints");
        job_repository_prefix(source->source.owner.repository, prefix);
        rc = delete_unkept(domain, prefix, list, listed, keep, count, reterr);
        for (int i = 0; i < listed; i++)
                virDomainCheckpointFree(list[i]);
        free(list);
        return rc;
}

static int libvirt_checkpoint_definition(Source *base, char **ret, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(checkpoint_freep) virDomainCheckpointPtr checkpoint = NULL;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        char *text;
        int rc;

        *ret = NULL;
        if (!source->checkpoint)
                return 0;
        rc = find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        checkpoint = virDomainCheckpointLookupByName(domain, source->checkpoint, 0);
        text = checkpoint ? virDomainCheckpointGetXMLDesc(checkpoint, VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN) : NULL;
        if (!text)
                return fail_libvirt(reterr, -EIO, "cannot get the definition of the new checkpoint");
        *ret = text;
        return 0;
}

/* ---- begin ---- */

/* Leaves nothing of a job that could not be begun, or of which nobody knows whether it was. */
static void undo_begin(LibvirtSource *source, const char *checkpoint) {
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        CLEANUP(checkpoint_freep) virDomainCheckpointPtr made = NULL;
        JobFound left;

        end_ours(source, &left, NULL);
        job_place_remove(&source->place);
        if (!checkpoint || find_domain(source, &domain, NULL) < 0)
                return;
        made = virDomainCheckpointLookupByName(domain, checkpoint, 0);
        if (made)
                delete_checkpoint(domain, made, NULL);
}

/* What a failed begin means. Where a base was wanted, the base is to blame unless it is clearly something else:
 * without one it is tried again, and then it fails with its true cause. */
static int begin_failed(virDomainPtr domain, bool incremental, Reason *reterr) {
        int rc = libvirt_code(incremental ? -ESTALE : -EIO);

        fail(reterr, rc, "cannot begin a backup job: %s", libvirt_words());
        if (rc != -ENOTCONN && rc != -EBUSY && !is_active(domain))
                return fail_within(reterr, -EHOSTDOWN, "the VM has stopped");
        return rc;
}

static int begin_in_place(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, struct timespec *ret_moment,
                          Reason *reterr) {
        CLEANUP(freep) char *backup = NULL, *checkpoint = NULL, *name = NULL;
        CLEANUP(job_disks_free) JobDisk *disks = NULL;
        bool incremental = false, marked = false;
        int rc;

        rc = job_disks(source, job, &disks, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < source->domain.disk_count; i++) {
                incremental |= disks[i].incremental;
                marked |= disks[i].checkpoint;
        }
        if (incremental) {
                rc = ensure_base(source, domain, job, disks, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = job_xml_backup(disks, source->domain.disk_count, job->base, source->place.socket, &backup, reterr);
        if (rc == 0 && marked && job->checkpoint) {
                rc = job_xml_checkpoint(disks, source->domain.disk_count, job->checkpoint, &checkpoint, reterr);
                name = strdup(job->checkpoint);
        }
        if (rc < 0 || (checkpoint && !name))
                return rc < 0 ? rc : fail_oom(reterr);
        /* The moment lies between here and the return; the checkpoint's own creation time is taken the same way. */
        clock_gettime(CLOCK_REALTIME, ret_moment);
        if (virDomainBackupBegin(domain, backup, checkpoint, 0) < 0)
                return begin_failed(domain, incremental, reterr);
        source->checkpoint = STEAL_PTR(name);
        return 0;
}

static int libvirt_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(domain_freep) virDomainPtr domain = NULL;
        struct timespec moment;
        JobPlaceWish wish;
        int rc;

        if (!source->uri.local)
                return fail(reterr, -EOPNOTSUPP, "%s is on another machine, whose backup socket cannot be reached from "
                                                 "here: capture there", source->uri.uri);
        rc = find_domain(source, &domain, reterr);
        if (rc < 0)
                return rc;
        rc = check_active(domain, reterr);
        if (rc < 0)
                return rc;
        rc = check_no_job(source, domain, reterr);
        if (rc < 0)
                return rc;
        wish = place_wish(source, domain);
        rc = job_place_make(&wish, &source->place, reterr);
        if (rc < 0)
                return rc;
        rc = begin_in_place(source, domain, job, &moment, reterr);
        if (rc < 0) {
                undo_begin(source, job->checkpoint);
                return rc;
        }
        source->begun = true;
        *ret_moment = moment;
        return 0;
}

/* ---- while the job runs ---- */

static int libvirt_open_reader(Source *base, size_t disk, bool incremental, SourceReader **ret, Reason *reterr) {
        const LibvirtSource *source = (LibvirtSource *) base;
        CLEANUP(freep) char *bitmap = NULL;
        const char *name;

        if (!source->begun || disk >= source->captured_count)
                return fail(reterr, -EINVAL, "there is no backup job to read from");
        name = source->domain.disks[source->captured[disk]].name;
        if (incremental && asprintf(&bitmap, "qemu:dirty-bitmap:%s", name) < 0) {
                bitmap = NULL;
                return fail_oom(reterr);
        }
        return nbd_reader_open(&(NbdAddress) { .socket_path = source->place.socket, .export_name = name, .bitmap = bitmap },
                               source->source.owner.cancel, ret, reterr);
}

static int libvirt_watch(Source *base, Reason *reterr) {
        LibvirtSource *source = (LibvirtSource *) base;

        return source->begun ? job_place_watch(&source->place, reterr) : 0;
}

/* ---- life ---- */

static void libvirt_free(Source *base) {
        LibvirtSource *source = (LibvirtSource *) base;

        if (source->connection)
                virConnectClose(source->connection);
        libvirt_uri_clear(&source->uri);
        domain_clear(&source->domain);
        job_place_forget(&source->place);
        free(source->captured);
        free(source->checkpoint);
        free(source);
}

static void libvirt_freep(LibvirtSource **source) {
        if (*source)
                libvirt_free(&(*source)->source);
}

static int libvirt_open(const SourceOwner *owner, Source **ret, Reason *reterr) {
        CLEANUP(libvirt_freep) LibvirtSource *source = calloc(1, sizeof *source);
        int rc;

        if (!source)
                return fail_oom(reterr);
        source->source.owner = *owner;
        rc = libvirt_uri_parse(owner->uri, &source->uri, reterr);
        if (rc < 0)
                return rc;
        source->name = source->uri.domain ?: owner->vm;
        rc = connect_to(source, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(source)->source;
        return 0;
}

const SourceOps libvirt_source_ops = {
        .name = "libvirt",
        .claims = libvirt_uri_claims,
        .open = libvirt_open,
        .identify = libvirt_identify,
        .inspect = libvirt_inspect,
        .begin = libvirt_begin,
        .checkpoint_definition = libvirt_checkpoint_definition,
        .open_reader = libvirt_open_reader,
        .watch = libvirt_watch,
        .end = libvirt_end,
        .end_leftovers = libvirt_end_leftovers,
        .keep_checkpoints = libvirt_keep_checkpoints,
        .free = libvirt_free,
};
