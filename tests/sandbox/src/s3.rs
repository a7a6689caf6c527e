//! S3 server: `s3s` checks signatures (headers and presigned URLs), `s3s-fs` keeps objects as files.
//! Added here: the list of running multipart uploads, `NoSuchUpload` for those that are not running, and a short name for the
//! object of each while it runs, because `s3s-fs` makes a file name of the key and the upload's id, which then is too long.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

use crate::config::SandboxConfig;

/// Opens the store below `data_dir` and makes the buckets.
pub(crate) async fn open(data_dir: &Path, config: &SandboxConfig) -> anyhow::Result<S3Service> {
    let root = data_dir.join("s3");
    for bucket in &config.buckets {
        tokio::fs::create_dir_all(root.join(bucket))
            .await
            .with_context(|| format!("bucket {bucket}"))?;
    }
    let files = FileSystem::new(&root)
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .context("object store")?;
    let mut builder = S3ServiceBuilder::new(Objects {
        files,
        uploads: Mutex::default(),
    });
    let keys = &config.credentials;
    builder.set_auth(SimpleAuth::from_single(
        keys.s3_access_key.clone(),
        keys.s3_secret_key.clone(),
    ));
    Ok(builder.build())
}

struct Objects {
    files: FileSystem,
    /// By upload id. Running uploads end with the process.
    uploads: Mutex<BTreeMap<String, Upload>>,
}

#[derive(Clone)]
struct Upload {
    bucket: String,
    key: String,
    /// What `s3s-fs` takes for its key.
    short: String,
    start: Timestamp,
}

impl Objects {
    fn uploads(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_upload(&self, id: &str) -> S3Result<Upload> {
        let upload = self.uploads().get(id).cloned();
        upload.ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Gives the object of a completed upload its own key.
    async fn rename(&self, upload: &Upload, request: &S3Request<()>) -> S3Result<Option<ETag>> {
        let copy = CopyObjectInput::builder()
            .bucket(upload.bucket.clone())
            .key(upload.key.clone())
            .copy_source(CopySource::Bucket {
                bucket: upload.bucket.as_str().into(),
                key: upload.short.as_str().into(),
                version_id: None,
            })
            .build()
            .map_err(S3Error::internal_error)?;
        let copied = self
            .files
            .copy_object(request.clone().map_input(|()| copy))
            .await?;
        let delete = DeleteObjectInput {
            bucket: upload.bucket.clone(),
            key: upload.short.clone(),
            ..DeleteObjectInput::default()
        };
        self.files
            .delete_object(request.clone().map_input(|()| delete))
            .await?;
        Ok(copied
            .output
            .copy_object_result
            .and_then(|result| result.e_tag))
    }
}

/// The same request, without what it asked for.
fn like<T>(request: &S3Request<T>) -> S3Request<()> {
    S3Request {
        input: (),
        method: request.method.clone(),
        uri: request.uri.clone(),
        headers: request.headers.clone(),
        extensions: request.extensions.clone(),
        credentials: request.credentials.clone(),
        region: request.region.clone(),
        service: request.service.clone(),
        trailing_headers: None,
    }
}

/// Implements the trait: operations `s3s-fs` does as they should be, and our own.
macro_rules! implement_s3 {
    (delegate { $($name:ident: $input:ident => $output:ident,)* } own { $($own:tt)* }) => {
        #[async_trait::async_trait]
        impl S3 for Objects {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$name(request).await
            })*
            $($own)*
        }
    };
}

implement_s3! {
    delegate {
        create_bucket: CreateBucketInput => CreateBucketOutput,
        delete_bucket: DeleteBucketInput => DeleteBucketOutput,
        head_bucket: HeadBucketInput => HeadBucketOutput,
        list_buckets: ListBucketsInput => ListBucketsOutput,
        get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput,
        put_object: PutObjectInput => PutObjectOutput,
        get_object: GetObjectInput => GetObjectOutput,
        head_object: HeadObjectInput => HeadObjectOutput,
        copy_object: CopyObjectInput => CopyObjectOutput,
        delete_object: DeleteObjectInput => DeleteObjectOutput,
        delete_objects: DeleteObjectsInput => DeleteObjectsOutput,
        list_objects: ListObjectsInput => ListObjectsOutput,
        list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    }
    own {
        async fn create_multipart_upload(
            &self,
            mut request: S3Request<CreateMultipartUploadInput>,
        ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
            let (bucket, short) = (request.input.bucket.clone(), format!("{}.upload", uuid::Uuid::new_v4()));
            let key = std::mem::replace(&mut request.input.key, short.clone());
            let mut response = self.files.create_multipart_upload(request).await?;
            if let Some(id) = &response.output.upload_id {
                let start = Timestamp::from(std::time::SystemTime::now());
                let upload = Upload { bucket, key: key.clone(), short, start };
                self.uploads().insert(id.clone(), upload);
            }
            response.output.key = Some(key);
            Ok(response)
        }

        async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
            self.check_upload(&request.input.upload_id)?;
            self.files.upload_part(request).await
        }

        async fn upload_part_copy(
            &self,
            request: S3Request<UploadPartCopyInput>,
        ) -> S3Result<S3Response<UploadPartCopyOutput>> {
            self.check_upload(&request.input.upload_id)?;
            self.files.upload_part_copy(request).await
        }

        async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
            self.check_upload(&request.input.upload_id)?;
            self.files.list_parts(request).await
        }

        async fn complete_multipart_upload(
            &self,
            mut request: S3Request<CompleteMultipartUploadInput>,
        ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
            let id = request.input.upload_id.clone();
            let upload = self.check_upload(&id)?;
            request.input.key.clone_from(&upload.short);
            let anew = like(&request);
            self.files.complete_multipart_upload(request).await?;
            self.uploads().remove(&id);
            let e_tag = self.rename(&upload, &anew).await?;
            Ok(S3Response::new(CompleteMultipartUploadOutput {
                bucket: Some(upload.bucket),
                key: Some(upload.key),
                e_tag,
                ..CompleteMultipartUploadOutput::default()
            }))
        }

        async fn abort_multipart_upload(
            &self,
            mut request: S3Request<AbortMultipartUploadInput>,
        ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
            let id = request.input.upload_id.clone();
            request.input.key = self.check_upload(&id)?.short;
            let response = self.files.abort_multipart_upload(request).await?;
            self.uploads().remove(&id);
            Ok(response)
        }

        async fn list_multipart_uploads(
            &self,
            request: S3Request<ListMultipartUploadsInput>,
        ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
            let ListMultipartUploadsInput { bucket, prefix, .. } = request.input;
            let wanted = prefix.clone().unwrap_or_default();
            let uploads = self.uploads();
            let running = uploads.iter().filter(|(_, upload)| upload.bucket == bucket && upload.key.starts_with(&wanted));
            let uploads = running.map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.start.clone()),
                ..MultipartUpload::default()
            });
            Ok(S3Response::new(ListMultipartUploadsOutput {
                uploads: Some(uploads.collect()),
                bucket: Some(bucket),
                prefix,
                is_truncated: Some(false),
                ..ListMultipartUploadsOutput::default()
            }))
        }
    }
}
