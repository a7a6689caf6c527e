//! S3 server: `s3s` checks signatures (headers and presigned URLs), `s3s-fs` keeps objects as files.
//! Added here: the list of running multipart uploads, and `NoSuchUpload` for those that are not running.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
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
    /// Upload id -> bucket, key, start. Running uploads end with the process.
    uploads: Mutex<BTreeMap<String, (String, String, Timestamp)>>,
}

impl Objects {
    fn uploads(&self) -> MutexGuard<'_, BTreeMap<String, (String, String, Timestamp)>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_upload(&self, id: &str) -> S3Result<()> {
        if self.uploads().contains_key(id) {
            Ok(())
        } else {
            Err(s3_error!(NoSuchUpload))
        }
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
            request: S3Request<CreateMultipartUploadInput>,
        ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
            let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
            let response = self.files.create_multipart_upload(request).await?;
            if let Some(id) = &response.output.upload_id {
                let start = Timestamp::from(std::time::SystemTime::now());
                self.uploads().insert(id.clone(), (bucket, key, start));
            }
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
            request: S3Request<CompleteMultipartUploadInput>,
        ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
            let id = request.input.upload_id.clone();
            self.check_upload(&id)?;
            let response = self.files.complete_multipart_upload(request).await?;
            self.uploads().remove(&id);
            Ok(response)
        }

        async fn abort_multipart_upload(
            &self,
            request: S3Request<AbortMultipartUploadInput>,
        ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
            let id = request.input.upload_id.clone();
            self.check_upload(&id)?;
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
            let running = uploads.iter().filter(|(_, (in_bucket, key, _))| *in_bucket == bucket && key.starts_with(&wanted));
            let uploads = running.map(|(id, (_, key, start))| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(start.clone()),
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
